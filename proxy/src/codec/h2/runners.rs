//! Tasks that serve one stream of a connection after another.
//!
//! The future of a stream is some kilobytes. A task for each stream would allocate them, move the future there and give the memory back,
//! every time; here the future is made in the place of the last one. Knows neither streams nor HTTP.
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::time::{self, Instant};
use crate::worker;

/// A task that had nothing to do for as long ends.
const REST: Duration = Duration::from_secs(1);

/// The tasks of one connection, and how they serve. Those that rest end with it; those that serve end when they have served.
pub(super) struct Runners<J, S> {
    resting: Rc<Resting<J>>,
    serve: S,
}

/// Where a task waits for its next job.
struct Seat<J> {
    job: Cell<Option<J>>,
    waker: Cell<Option<Waker>>,
    is_dismissed: Cell<bool>,
}

/// Tasks that wait; the last one has waited for the shortest time.
struct Resting<J> {
    seats: RefCell<Vec<Rc<Seat<J>>>>,
    /// The fewest since [`Self::is_watched`] began its round: so many were not needed.
    fewest: Cell<usize>,
    is_watched: Cell<bool>,
}

impl<J, S, F> Runners<J, S>
where
    J: 'static,
    S: Fn(J) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    /// Without tasks yet.
    pub(super) fn new(serve: S) -> Self {
        Self {
            resting: Rc::new(Resting {
                seats: RefCell::default(),
                fewest: Cell::new(0),
                is_watched: Cell::new(false),
            }),
            serve,
        }
    }

    /// Serves `job` in a task that rests, or in a new one.
    pub(super) fn run(&self, job: J) {
        if let Some(seat) = self.resting.take() {
            seat.give(job);
            return;
        }
        let seat = Rc::new(Seat {
            job: Cell::new(Some(job)),
            waker: Cell::default(),
            is_dismissed: Cell::new(false),
        });
        worker::spawn(work(seat, Rc::downgrade(&self.resting), self.serve.clone()));
    }
}

async fn work<J: 'static, S, F>(seat: Rc<Seat<J>>, resting: Weak<Resting<J>>, serve: S)
where
    S: Fn(J) -> F,
    F: Future<Output = ()>,
{
    while let Some(job) = seat.job().await {
        serve(job).await;
        let Some(resting) = resting.upgrade() else {
            return;
        };
        resting.put(seat.clone());
    }
}

impl<J> Seat<J> {
    fn give(&self, job: J) {
        self.job.set(Some(job));
        self.wake();
    }

    fn dismiss(&self) {
        self.is_dismissed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The next job; none when there will be no other.
    async fn job(&self) -> Option<J> {
        poll_fn(|cx| {
            if let Some(job) = self.job.take() {
                return Poll::Ready(Some(job));
            }
            if self.is_dismissed.get() {
                return Poll::Ready(None);
            }
            self.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl<J: 'static> Resting<J> {
    fn take(&self) -> Option<Rc<Seat<J>>> {
        let mut seats = self.seats.borrow_mut();
        let seat = seats.pop()?;
        self.fewest.set(self.fewest.get().min(seats.len()));
        Some(seat)
    }

    fn put(self: &Rc<Self>, seat: Rc<Seat<J>>) {
        self.seats.borrow_mut().push(seat);
        if !self.is_watched.replace(true) {
            self.fewest.set(0);
            worker::spawn(watch(Rc::downgrade(self)));
        }
    }

    /// Ends those that were not needed since the last call; false: nobody rests any more.
    fn dismiss_spare(&self) -> bool {
        let mut seats = self.seats.borrow_mut();
        let spare = self.fewest.get().min(seats.len());
        seats.drain(..spare).for_each(|seat| seat.dismiss());
        self.fewest.set(seats.len());
        !seats.is_empty()
    }
}

/// Ends what rests for too long, until nothing rests.
async fn watch<J: 'static>(resting: Weak<Resting<J>>) {
    loop {
        time::reach(Some(Instant::now() + REST)).await;
        let Some(resting) = resting.upgrade() else {
            return;
        };
        if !resting.dismiss_spare() {
            resting.is_watched.set(false);
            return;
        }
    }
}

impl<J> Drop for Resting<J> {
    fn drop(&mut self) {
        self.seats.get_mut().drain(..).for_each(|seat| seat.dismiss());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Served = Rc<RefCell<Vec<u32>>>;

    type Serving = std::pin::Pin<Box<dyn Future<Output = ()>>>;

    /// A job takes 10 ms.
    fn runners(served: Served) -> Runners<u32, impl Fn(u32) -> Serving + Clone> {
        Runners::new(move |job| -> Serving {
            let served = served.clone();
            Box::pin(async move {
                pass(10).await;
                served.borrow_mut().push(job);
            })
        })
    }

    async fn on_worker(test: impl AsyncFnOnce()) {
        tokio::time::pause();
        tokio::task::LocalSet::new().run_until(test()).await;
    }

    async fn pass(milliseconds: u64) {
        time::reach(Some(Instant::now() + Duration::from_millis(milliseconds))).await;
    }

    #[tokio::test]
    async fn jobs_are_served_in_tasks_that_rest() {
        on_worker(async || {
            let served = Served::default();
            let runners = runners(served.clone());
            for job in 0..3 {
                runners.run(job);
            }
            pass(20).await;
            for job in 3..5 {
                runners.run(job);
                pass(20).await;
            }
            assert_eq!(*served.borrow(), [0, 1, 2, 3, 4]);
            assert_eq!(runners.resting.seats.borrow().len(), 3);
        })
        .await;
    }

    #[tokio::test]
    async fn tasks_that_nobody_needs_end() {
        on_worker(async || {
            let served = Served::default();
            let runners = runners(served.clone());
            for job in 0..3 {
                runners.run(job);
            }
            for job in 3..200 {
                pass(20).await;
                runners.run(job);
            }
            pass(20).await;
            assert_eq!(runners.resting.seats.borrow().len(), 1);
            pass(2500).await;
            assert_eq!(runners.resting.seats.borrow().len(), 0);
            assert!(!runners.resting.is_watched.get());
            runners.run(7);
            pass(20).await;
            assert_eq!(served.borrow().last(), Some(&7));
        })
        .await;
    }

    #[tokio::test]
    async fn a_job_is_served_though_its_connection_ends() {
        on_worker(async || {
            let served = Served::default();
            let runners = runners(served.clone());
            runners.run(1);
            pass(20).await;
            runners.run(2);
            drop(runners);
            pass(20).await;
            assert_eq!(*served.borrow(), [1, 2]);
            assert_eq!(Rc::strong_count(&served), 1, "its tasks are over");
        })
        .await;
    }
}
