//! The server side of HTTP/1: a thin driver between a socket, the machine, and the handler of streams.
//!
//! One request at a time, in order; what a client pipelines waits in the socket. [`serve`] is the way of a connection: head, answer,
//! response, again.
mod connection;
mod outbox;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Method;
use http::header::CONNECTION;
use tokio::io::{AsyncRead, AsyncWrite};

use self::connection::{Connection, Received};
use self::outbox::Outbox;
use super::machine::encode::{self, BodyCoding, Exchange};
use super::machine::request::HeadLimits;
use super::machine::{ReceivedHead, Receiver};
use crate::codec::activity::{Active, Activity};
use crate::codec::names::Naming;
use crate::codec::{Body, Refusal, Request, Response, ServeEnd, ServerOptions, StreamHandler, body};
use crate::drain::DrainWatch;
use crate::time::{self, Instant};

/// A client that does not take the last bytes, and is not waited for, still has so long.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Serves one connection until it closes. `tls` says which scheme requests in origin form have.
pub(crate) async fn serve<IO, H>(
    io: IO,
    tls: bool,
    options: &ServerOptions,
    handler: Rc<H>,
    mut drain: DrainWatch,
) -> ServeEnd
where
    IO: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug + 'static,
    H: StreamHandler,
{
    let limits = HeadLimits {
        max_bytes: options.max_head_bytes,
        max_headers: options.max_headers,
        accept_http_10: options.accept_http_10,
        takes_chunked_length: options.takes_chunked_length,
        passes_trailers: options.passes_trailers,
        name_case: options.name_case,
        underscores: options.http1_underscores.clone(),
    };
    let connection = Rc::new(Connection::new(io, Receiver::new(limits), options.informs));
    let _closed = Closed(connection.clone());
    let naming = Naming::of(options.name_case);
    let naming = naming.as_ref();
    let activity = Activity::new();
    let life = options.life;
    let mut served = 0_u32;
    let draining = drain.clone();
    let mut wait = Wait {
        options,
        activity: &activity,
        drained: pin!(drain.started()),
        idle: pin!(activity.idle(options.idle_timeout)),
        old: pin!(time::reach(life.old_at)),
        is_old: false,
        tell_old: &|| handler.is_old(),
        closing: None,
    };
    let mut outbox = Outbox::default();
    loop {
        let (head, _active) = match wait.next(&connection).await {
            Next::Head(head, active) => (head, active),
            Next::Refused(refusal, _active) => {
                let exchange = Exchange {
                    close: true,
                    ..Exchange::new(&Method::GET, http::Version::HTTP_11)
                };
                let response = handler.refuse(&refusal);
                if respond(&connection, &mut outbox, exchange, naming, response)
                    .await
                    .is_ok()
                {
                    linger(&connection, life.linger).await;
                }
                return match refusal.is_protocol_error {
                    true => ServeEnd::Failed(refusal.details.to_owned()),
                    false => ServeEnd::Closed,
                };
            }
            Next::Gone(Some(_active)) => {
                handler.gave_up();
                return ServeEnd::Closed;
            }
            Next::Gone(None) => return ServeEnd::Closed,
            Next::Over => {
                let _ = time::within(Some(LAST_BYTES), poll_fn(|cx| connection.poll_shutdown(cx))).await;
                return ServeEnd::Closed;
            }
        };
        let mut exchange = Exchange::new(&head.head.method, head.head.version);
        exchange.upgrade = head.head.is_upgrade;
        exchange.trailers = options.passes_trailers;
        let keep_alive = head.keep_alive;
        // In place: it is some kilobytes, and would be moved with each call that takes it.
        let answering = pin!(handler.handle(request(&connection, head, tls)));
        let Some(response) = answer(&connection, &mut outbox, answering).await else {
            return ServeEnd::Closed;
        };
        // As Envoy: an answer before the end of the request is the last one, since nobody waits for that end.
        served = served.saturating_add(1);
        let is_spent = life.is_spent(served);
        if is_spent {
            handler.is_spent();
        }
        if !wait.is_old && life.is_old() {
            wait.becomes_old();
        }
        exchange.close = !keep_alive
            || is_spent
            || wait.is_old
            || !connection.is_whole()
            || draining.is_draining()
            || wait.closing.is_some()
            || says_close(&response);
        match respond(&connection, &mut outbox, exchange, naming, response).await {
            Ok(Sent::Open) => {}
            Ok(Sent::Last) => {
                linger(&connection, life.linger).await;
                return match connection.feedback.refusal() {
                    Some(refusal) => ServeEnd::Failed(refusal.details.to_owned()),
                    None => ServeEnd::Closed,
                };
            }
            Err(CutShort) => return ServeEnd::Closed,
        }
    }
}

fn request<IO>(connection: &Rc<Connection<IO>>, received: ReceivedHead, tls: bool) -> Request
where
    IO: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug + 'static,
{
    let mut head = received.head;
    head.scheme = if tls { "https" } else { "http" };
    let body = if connection.is_whole() {
        Body::empty()
    } else {
        Body::incoming(connection.clone())
    };
    Request {
        head,
        body,
        feedback: connection.feedback.clone(),
    }
}

/// The response was made to end its connection.
fn says_close(response: &Response) -> bool {
    let said = response.head.headers.get(CONNECTION);
    said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Tells whoever still reads a body when the connection is over, however that came.
struct Closed<IO: AsyncRead + AsyncWrite + Unpin>(Rc<Connection<IO>>);

impl<IO: AsyncRead + AsyncWrite + Unpin> Drop for Closed<IO> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The time between requests.
struct Wait<'a, D, I, O> {
    options: &'a ServerOptions,
    activity: &'a Rc<Activity>,
    drained: Pin<&'a mut D>,
    idle: Pin<&'a mut I>,
    old: Pin<&'a mut O>,
    /// The connection was found to be as old as it may be.
    is_old: bool,
    tell_old: &'a dyn Fn(),
    /// Idle for too long, or old: since then the next response is the last, and at this time the connection closes without one.
    closing: Option<Instant>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "mostly the large one, and taken apart at once"
)]
enum Next {
    Head(ReceivedHead, Active),
    Refused(Refusal, Active),
    /// The client left; inside of a head, if that was a stream.
    Gone(Option<Active>),
    /// No request is wanted any more.
    Over,
}

impl<D, I, O> Wait<'_, D, I, O>
where
    D: Future<Output = ()>,
    I: Future<Output = ()>,
    O: Future<Output = ()>,
{
    async fn next<IO: AsyncRead + AsyncWrite + Unpin>(&mut self, connection: &Connection<IO>) -> Next {
        // A stream begins with the first byte of its head.
        let mut active = None;
        let mut timer: Option<Pin<Box<time::Sleep>>> = None;
        poll_fn(|cx| {
            if let Poll::Ready(received) = connection.poll_head(cx) {
                let mut begun = || active.take().unwrap_or_else(|| self.activity.begin());
                return Poll::Ready(match received {
                    Received::Head(head) => Next::Head(head, begun()),
                    Received::Refused(refusal) => Next::Refused(refusal, begun()),
                    Received::End if connection.is_in_head() => Next::Gone(Some(begun())),
                    Received::End => Next::Gone(None),
                });
            }
            if connection.is_in_head() {
                if active.is_none() {
                    active = Some(self.activity.begin());
                    timer = self
                        .options
                        .head_timeout
                        .map(|limit| Box::pin(time::sleep(limit)));
                }
                let expired = timer
                    .as_mut()
                    .is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
                let active = active.take_if(|_| expired);
                return match active {
                    Some(active) => Poll::Ready(Next::Refused(Refusal::head_timeout(), active)),
                    None => Poll::Pending,
                };
            }
            self.poll_over(connection.has_received(), &mut timer, cx)
                .map(|()| Next::Over)
        })
        .await
    }

    /// Ready when the connection is as old as it may be; one that is to wait for its next response is not, once it has spoken.
    fn poll_old(&mut self, has_spoken: bool, cx: &mut Context<'_>) -> Poll<()> {
        let life = &self.options.life;
        if self.is_old || life.old_at.is_none() {
            return Poll::Pending;
        }
        let waits = life.http1_waits_for_response && has_spoken;
        ready!(self.old.as_mut().poll(cx));
        self.becomes_old();
        match waits {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    fn becomes_old(&mut self) {
        self.is_old = true;
        (self.tell_old)();
    }

    /// Ready when the connection has to close although nothing goes on. As Envoy, one that has spoken HTTP gets `drain_timeout` first.
    fn poll_over(
        &mut self,
        has_spoken: bool,
        timer: &mut Option<Pin<Box<time::Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.options.drain_closes_idle && self.drained.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.closing.is_none() {
            let is_due = self.poll_old(has_spoken, cx).is_ready() || self.idle.as_mut().poll(cx).is_ready();
            if !is_due {
                return Poll::Pending;
            }
            if !has_spoken {
                return Poll::Ready(());
            }
            self.closing = Some(Instant::now() + self.options.drain_timeout);
        }
        let Some(at) = self.closing else {
            return Poll::Pending;
        };
        timer
            .get_or_insert_with(|| Box::pin(time::sleep_until(at)))
            .as_mut()
            .poll(cx)
    }
}

/// Runs the handler, with its 1xx responses on their way; `None`: the client left.
async fn answer<IO: AsyncRead + AsyncWrite + Unpin>(
    connection: &Connection<IO>,
    outbox: &mut Outbox,
    mut answering: Pin<&mut impl Future<Output = Response>>,
) -> Option<Response> {
    poll_fn(|cx| {
        if connection.is_cut() {
            return Poll::Ready(None);
        }
        connection.feedback.register(cx);
        let response = answering.as_mut().poll(cx);
        let (informational, names) = connection.feedback.take_told();
        // One who does not read what he asked for does without.
        if let Some(informational) = informational.filter(|_| !outbox.is_full()) {
            encode::informational(outbox.tail(), &informational);
        }
        if let Some(names) = names {
            connection.naming.replace(Some(Naming::Original(Arc::new(names))));
        }
        if let Poll::Ready(response) = response {
            return Poll::Ready(Some(response));
        }
        if let Poll::Ready(Err(_)) = connection.poll_write(outbox, cx) {
            return Poll::Ready(None);
        }
        connection.poll_gone(cx).map(|()| None)
    })
    .await
}

/// A response went out.
enum Sent {
    /// Another one may follow.
    Open,
    /// It was the last one.
    Last,
}

/// A response did not go out whole: the connection is of no use any more.
struct CutShort;

async fn respond<IO: AsyncRead + AsyncWrite + Unpin>(
    connection: &Connection<IO>,
    outbox: &mut Outbox,
    mut exchange: Exchange,
    naming: Option<&Naming>,
    response: Response,
) -> Result<Sent, CutShort> {
    let Response { head, body } = response;
    let empty = body.is_empty();
    let begin = outbox.tail().len();
    let mut coding = encode::head(outbox.tail(), &head, &exchange, empty);
    let said = connection.naming.take();
    if let Some(naming) = said.as_ref().or(naming) {
        naming.head(outbox.tail().get_mut(begin..).unwrap_or_default());
    }
    drop(head);
    exchange.close |= coding == BodyCoding::UntilClose;
    // Limits hold while the client takes nothing, too.
    let watchdogs = body.watchdogs();
    let mut rest = if empty { Rest::Nothing } else { Rest::Body(body) };
    poll_fn(|cx| {
        loop {
            if connection.is_cut() {
                return Poll::Ready(Err(CutShort));
            }
            let filled = poll_fill(&mut rest, &mut coding, exchange.trailers, outbox, cx);
            match (filled, connection.poll_write(outbox, cx)) {
                (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(CutShort)),
                (Poll::Ready(Filled::All), Poll::Ready(Ok(()))) => return Poll::Ready(rest.outcome()),
                (Poll::Ready(Filled::Some), Poll::Ready(Ok(()))) => {}
                (Poll::Ready(Filled::All), Poll::Pending) => return Poll::Pending,
                (Poll::Ready(Filled::Some), Poll::Pending) => {
                    return body::poll_interruption(&watchdogs, cx).map(|_| Err(CutShort));
                }
                (Poll::Pending, _) => return connection.poll_gone(cx).map(|()| Err(CutShort)),
            }
        }
    })
    .await?;
    Ok(if exchange.close { Sent::Last } else { Sent::Open })
}

/// What is left of a response body.
enum Rest {
    Body(Body),
    Nothing,
    /// It failed. What came before still goes out.
    Lost,
}

impl Rest {
    fn outcome(&self) -> Result<(), CutShort> {
        match self {
            Self::Lost => Err(CutShort),
            Self::Body(_) | Self::Nothing => Ok(()),
        }
    }
}

enum Filled {
    /// The outbox is full.
    Some,
    /// Nothing more comes of the body.
    All,
}

/// Moves frames of the body into the outbox until that is full or the body has no more for now.
fn poll_fill(
    rest: &mut Rest,
    coding: &mut BodyCoding,
    passes_trailers: bool,
    outbox: &mut Outbox,
    cx: &mut Context<'_>,
) -> Poll<Filled> {
    while let Rest::Body(body) = rest {
        if outbox.is_full() {
            return Poll::Ready(Filled::Some);
        }
        let ended = match ready!(http_body::Body::poll_frame(Pin::new(body), cx)) {
            None => true,
            Some(Err(_)) => {
                *rest = Rest::Lost;
                return Poll::Ready(Filled::All);
            }
            Some(Ok(frame)) => {
                match frame.into_data() {
                    Ok(data) => put(outbox, *coding, data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok().filter(|_| passes_trailers);
                        if let Some(trailers) = trailers.filter(|_| *coding == BodyCoding::Chunked) {
                            encode::last_chunk(outbox.tail(), &trailers);
                            *coding = BodyCoding::None;
                        }
                    }
                }
                http_body::Body::is_end_stream(body)
            }
        };
        if ended {
            if *coding == BodyCoding::Chunked {
                outbox.tail().extend_from_slice(encode::LAST_CHUNK);
            }
            // Its observers hear of the end.
            *rest = Rest::Nothing;
        }
    }
    Poll::Ready(Filled::All)
}

fn put(outbox: &mut Outbox, coding: BodyCoding, data: bytes::Bytes) {
    match coding {
        BodyCoding::None => {}
        BodyCoding::Plain | BodyCoding::UntilClose => outbox.push(data),
        BodyCoding::Chunked if data.is_empty() => {}
        BodyCoding::Chunked => {
            encode::chunk_begin(outbox.tail(), data.len());
            outbox.push(data);
            outbox.tail().extend_from_slice(encode::CHUNK_END);
        }
    }
}

/// Closes our side, and leaves the client time to read what it was told.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(connection: &Connection<IO>, limit: Option<Duration>) {
    connection.give_up_body();
    let expected = !connection.is_drained() && limit.is_some();
    let _ = time::within(Some(limit.unwrap_or(LAST_BYTES)), async {
        let shut = poll_fn(|cx| connection.poll_shutdown(cx)).await;
        if shut.is_ok() && expected {
            poll_fn(|cx| connection.poll_discard(cx)).await;
        }
    })
    .await;
}
