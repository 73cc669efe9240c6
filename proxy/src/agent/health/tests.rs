//! What is told, and when.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::time::Duration;

use outrigger_model::readiness::{ProbeMethod, ProbeTarget};

use super::*;

fn probe(success_threshold: u32, failure_threshold: u32) -> ReadinessProbe {
    ReadinessProbe {
        method: ProbeMethod::Exec(vec!["true".to_owned()]),
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        answer_timeout: Duration::from_secs(1),
        success_threshold,
        failure_threshold,
    }
}

/// `+` a good answer, `-` a bad one; what is told at each: `R`eady, `N`ot, `.` nothing.
fn check(success_threshold: u32, failure_threshold: u32, answers: &str, expected: &str) {
    let mut state = State::new(&probe(success_threshold, failure_threshold));
    let told = answers.chars().map(|answer| {
        let answer = if answer == '+' {
            Ok(())
        } else {
            Err(Unready::Proxy)
        };
        match state.take(answer) {
            None => '.',
            Some(Ok(())) => 'R',
            Some(Err(_)) => 'N',
        }
    });
    assert_eq!(
        told.collect::<String>(),
        expected,
        "{success_threshold} {failure_threshold} {answers}"
    );
}

#[test]
fn only_changes_are_told_and_only_after_so_many_in_a_row() {
    check(1, 1, "++--+", "R.N.R");
    check(1, 1, "-+", "NR");
    check(3, 2, "++-+++-+--++++", ".....R...N..R.");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_before_the_proxy_is_ready() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = ProbeTarget {
        target_host: "127.0.0.1".to_owned(),
        target_port: silent.local_addr().unwrap().port(),
    };
    let (is_ready, told) = (Cell::new(false), RefCell::new(Vec::new()));
    let probe = ReadinessProbe {
        method: ProbeMethod::TcpSocket(target),
        initial_delay: Duration::from_secs(5),
        ..probe(1, 1)
    };
    let watched = watch(probe, || is_ready.get(), |report| told.borrow_mut().push(report));
    let seen = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(told.borrow().is_empty(), "the first delay is not over");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let first = told.borrow_mut().remove(0);
        let error = first.error.unwrap();
        assert_eq!(
            (error.code, error.message.as_str()),
            (500, "the proxy is not ready yet")
        );
        assert_eq!(first.after, LISTENER_TYPE);
        is_ready.set(true);
        // The clock of the test goes on by itself while the system connects.
        while told.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(told.borrow_mut().remove(0).error, None);
    };
    tokio::select! {
        () = watched => {}
        () = seen => {}
    }
    drop(silent);
}
