//! Peak EWMA beside least request, with one slow host of four, on a virtual clock.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const REQUESTS: usize = 20_000;
/// Mean time between two requests.
const BETWEEN: Duration = Duration::from_micros(2_500);
const QUICK: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(200);

/// Part of the requests that the slow host got, and mean and 99th percentile of latency in milliseconds.
async fn run(policy: LbPolicy) -> (f64, f64, f64) {
    let settings = settings(policy);
    let set = of_weights(&[1; 4], &settings);
    let breaker = CircuitBreaker::default();
    let mut random = fastrand::Rng::with_seed(5);
    let mut ends: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    let mut latencies = Vec::with_capacity(REQUESTS);
    let mut slow = 0;
    let until = async |at: Instant| tokio::time::advance(at.saturating_duration_since(Instant::now())).await;
    for _ in 0..REQUESTS {
        let next = Instant::now() + BETWEEN.mul_f64(-random.f64().max(1e-9).ln());
        // Answers that come before it.
        while let Some(Reverse((end, host))) = ends.peek().copied()
            && end <= next
        {
            ends.pop();
            until(end).await;
            set.all[host].counters.rq_active.fetch_sub(1, Ordering::Relaxed);
            if let Some(decay) = settings.latency_decay() {
                let latency = if host == 0 { SLOW } else { QUICK };
                set.all[host].state.note_latency(latency, decay);
            }
        }
        until(next).await;
        let picked = pick(&set, &breaker, &Wish::default(), &mut random).expect("a host");
        let host = set
            .all
            .iter()
            .position(|host| Arc::ptr_eq(host, picked.host))
            .expect("one of them");
        set.all[host].counters.rq_active.fetch_add(1, Ordering::Relaxed);
        let latency = if host == 0 { SLOW } else { QUICK };
        slow += usize::from(host == 0);
        latencies.push(latency);
        ends.push(Reverse((next + latency, host)));
    }
    latencies.sort_unstable();
    let millis = |latency: Duration| latency.as_secs_f64() * 1000.0;
    let mean = latencies.iter().map(|latency| millis(*latency)).sum::<f64>() / REQUESTS as f64;
    let part = slow as f64 / REQUESTS as f64;
    (part, mean, millis(latencies[REQUESTS * 99 / 100]))
}

#[tokio::test(start_paused = true)]
async fn a_slow_host_gets_far_fewer_requests_than_by_least_request() {
    let (least_part, least_mean, least_p99) = run(LEAST_REQUEST).await;
    let policy = LbPolicy::PeakEwma {
        decay: Duration::from_secs(10),
        default_rtt: Duration::from_millis(10),
    };
    let (part, mean, p99) = run(policy).await;
    println!("least request: {least_part:.4} of the requests, mean {least_mean:.1} ms, p99 {least_p99} ms");
    println!("peak EWMA: {part:.4} of the requests, mean {mean:.1} ms, p99 {p99} ms");
    assert!(
        part < least_part / 4.0 && mean < least_mean,
        "{part} {least_part} {mean} {least_mean}"
    );
    assert!(p99 <= 10.0 && least_p99 >= 200.0, "{p99} {least_p99}");
}
