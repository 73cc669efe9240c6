//! The memory behind the ids: one [`Table`] for each thread, written by that thread alone, read by whoever renders.
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::histogram::Bins;
use super::ids::{CellEntry, HistogramEntry, Kind};

/// Ids per chunk; a chunk of counters is 8 KiB.
const CHUNK: usize = 1024;
/// Chunks per table: room for 4,194,304 counters and gauges. The empty table costs 64 KiB a thread.
const CELL_CHUNKS: usize = 4096;
/// Room for 262,144 histograms.
const HISTOGRAM_CHUNKS: usize = 256;

thread_local! {
    /// The table of this thread, and whose it is.
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

struct Local {
    registry: u32,
    table: Arc<Table>,
}

/// An array that grows by whole chunks and never moves, so readers need no lock.
struct Chunked<T>(Box<[OnceLock<Box<[T]>>]>);

impl<T: Default> Chunked<T> {
    fn new(chunks: usize) -> Chunked<T> {
        Chunked((0..chunks).map(|_| OnceLock::new()).collect())
    }

    fn get(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        self.0.get(slot / CHUNK)?.get()?.get(slot % CHUNK)
    }

    #[inline]
    fn get_or_allocate(&self, slot: u32) -> Option<&T> {
        let slot = slot as usize;
        let chunk = self
            .0
            .get(slot / CHUNK)?
            .get_or_init(|| (0..CHUNK).map(|_| T::default()).collect());
        chunk.get(slot % CHUNK)
    }
}

/// Slots of one thread.
pub(super) struct Table {
    cells: Chunked<AtomicU64>,
    histograms: Chunked<OnceLock<Box<Bins>>>,
}

impl Table {
    fn new() -> Table {
        Table {
            cells: Chunked::new(CELL_CHUNKS),
            histograms: Chunked::new(HISTOGRAM_CHUNKS),
        }
    }

    pub(super) fn cell(&self, slot: Option<u32>) -> u64 {
        slot.and_then(|slot| self.cells.get(slot))
            .map_or(0, |cell| cell.load(Relaxed))
    }

    pub(super) fn bins(&self, slot: Option<u32>) -> Option<&Bins> {
        self.histograms.get(slot?)?.get().map(|bins| &**bins)
    }
}

/// Adds to this thread's slot; false when the thread has none in this registry.
///
/// Load and store suffice: nobody else writes this cell while an id of it lives.
#[inline]
pub(super) fn add(shared: &Shared, slot: Option<u32>, n: u64) -> bool {
    with_local(shared, |table| {
        let Some(cell) = slot.and_then(|slot| table.cells.get_or_allocate(slot)) else {
            return false;
        };
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        true
    })
}

/// Records into this thread's histogram; false when the thread has none in this registry.
#[inline]
pub(super) fn record(shared: &Shared, slot: Option<u32>, value: u64) -> bool {
    with_local(shared, |table| {
        let Some(bins) = slot.and_then(|slot| table.histograms.get_or_allocate(slot)) else {
            return false;
        };
        bins.get_or_init(Box::default).record_local(value);
        true
    })
}

#[inline]
fn with_local(shared: &Shared, write: impl FnOnce(&Table) -> bool) -> bool {
    // `try_with`: a thread-local destructor may still count after this one is gone.
    let written = LOCAL.try_with(|local| match &*local.borrow() {
        Some(local) if local.registry == shared.id => write(&local.table),
        _ => false,
    });
    written.unwrap_or(false)
}

/// Slots and tables of one registry.
pub(super) struct Shared {
    id: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tables: Vec<Arc<Table>>,
    /// Tables whose thread has left: used again, so that threads which come and go do not pile up memory.
    idle: Vec<Arc<Table>>,
    cells: Free,
    histograms: Free,
}

/// Slots that may be given out.
#[derive(Default)]
struct Free {
    next: u32,
    returned: Vec<u32>,
}

impl Free {
    fn take(&mut self, limit: usize) -> Option<u32> {
        if let Some(slot) = self.returned.pop() {
            return Some(slot);
        }
        let slot = ((self.next as usize) < limit).then_some(self.next)?;
        self.next += 1;
        Some(slot)
    }
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        Arc::new(Shared {
            id: NEXT_ID.fetch_add(1, Relaxed),
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tables(&self) -> Vec<Arc<Table>> {
        self.lock().tables.clone()
    }

    /// When no slot is left, all threads share the entry's own cell: slower, still exact.
    pub(super) fn new_cell(self: &Arc<Self>, name: Arc<str>, kind: Kind) -> Arc<CellEntry> {
        let slot = self.lock().cells.take(CELL_CHUNKS * CHUNK);
        Arc::new(CellEntry::new(name, kind, slot, Arc::clone(self)))
    }

    pub(super) fn new_histogram(self: &Arc<Self>, name: Arc<str>) -> Arc<HistogramEntry> {
        let slot = self.lock().histograms.take(HISTOGRAM_CHUNKS * CHUNK);
        Arc::new(HistogramEntry::new(name, slot, Arc::clone(self)))
    }

    /// Called when the last id is gone: no thread can write the slot any more, so clearing it here is safe.
    pub(super) fn free_cell(&self, slot: Option<u32>) {
        let Some(slot) = slot else { return };
        let mut state = self.lock();
        for cell in state.tables.iter().filter_map(|table| table.cells.get(slot)) {
            cell.store(0, Relaxed);
        }
        state.cells.returned.push(slot);
    }

    pub(super) fn free_histogram(&self, slot: Option<u32>) {
        let Some(slot) = slot else { return };
        let mut state = self.lock();
        for bins in state.tables.iter().filter_map(|table| table.bins(Some(slot))) {
            bins.clear();
        }
        state.histograms.returned.push(slot);
    }
}

/// Ends the thread's use of its slots when dropped; must be dropped on the thread that entered.
pub(crate) struct WorkerStats {
    shared: Arc<Shared>,
    table: Arc<Table>,
    outer: Option<Local>,
    not_send: PhantomData<*const ()>,
}

pub(super) fn enter(shared: &Arc<Shared>) -> WorkerStats {
    let table = take_table(&mut shared.lock());
    let local = Local {
        registry: shared.id,
        table: Arc::clone(&table),
    };
    let outer = LOCAL.with(|cell| cell.borrow_mut().replace(local));
    WorkerStats {
        shared: Arc::clone(shared),
        table,
        outer,
        not_send: PhantomData,
    }
}

fn take_table(state: &mut State) -> Arc<Table> {
    if let Some(table) = state.idle.pop() {
        return table;
    }
    let table = Arc::new(Table::new());
    state.tables.push(Arc::clone(&table));
    table
}

impl Drop for WorkerStats {
    fn drop(&mut self) {
        let outer = self.outer.take();
        // When the thread is already being torn down the slot is gone by itself.
        let _gone = LOCAL.try_with(|cell| *cell.borrow_mut() = outer);
        // The next owner sees all our relaxed stores: it takes the table under the same lock.
        self.shared.lock().idle.push(Arc::clone(&self.table));
    }
}
