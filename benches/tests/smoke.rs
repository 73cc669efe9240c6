//! The smallest workload, outrigger alone, for a second: so that the tool does not rot between two reports.
//!
//! Named in the Makefile beside the tests that need the release build, because it runs that.

mod smoke {
    use std::time::Duration;

    use outrigger_bench::cells::{self, Setup, Workload};
    use outrigger_bench::interleave::Timing;
    use outrigger_bench::peer::Proxy;
    use outrigger_bench::report;

    #[test]
    fn a_second_of_the_hop_gives_a_table() {
        let timing = Timing {
            passes: 2,
            slice: Duration::from_millis(400),
            lead: Duration::from_millis(50),
            warm_up: Duration::from_millis(100),
        };
        let setup = Setup::new(&[Proxy::Outrigger], timing).unwrap_or_else(|error| panic!("{error:#}"));
        let (cell, samples) = cells::run(&setup, Workload::Hop);
        assert_eq!(cell.faults, [""; 0]);
        assert_eq!(samples.len(), 2);
        for sample in &samples {
            assert!(sample.requests > 100 && sample.micros() > 1.0, "{sample:?}");
        }
        assert!(report::cell(&cell, &samples).contains("| outrigger | proxy |"));
    }
}
