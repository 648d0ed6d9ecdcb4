use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Lockstep;

#[test]
fn a_step_begins_after_the_one_before() {
    for threads in [1, 2, 5] {
        let mut lockstep = Lockstep::new(threads).unwrap();
        for _ in 0..20 {
            let counts: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            lockstep.run(&|worker| {
                for (step, count) in counts.iter().enumerate() {
                    let before = step.checked_sub(1).map(|before| &counts[before]);
                    assert!(before.is_none_or(|before| before.load(Ordering::Relaxed) == 37));
                    worker.share(37, 3, |items| {
                        count.fetch_add(items.len(), Ordering::Relaxed);
                    });
                }
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 37));
        }
    }
}

#[test]
fn a_panic_comes_out_and_leaves_the_threads_usable() {
    let mut lockstep = Lockstep::new(3).unwrap();
    for _ in 0..3 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            lockstep.run(&|worker| {
                worker.share(8, 1, |items| assert!(items.start != 5, "item five"));
                worker.share(8, 1, |_| {});
            });
        }));
        let message = *caught.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!(message, "item five");
        let done = AtomicUsize::new(0);
        lockstep.run(&|worker| {
            worker.share(8, 1, |items| {
                done.fetch_add(items.len(), Ordering::Relaxed);
            });
        });
        assert_eq!(done.into_inner(), 8);
    }
}

/// Clock ticks of processor time that each of our helper threads has used.
#[cfg(target_os = "linux")]
fn ticks(name: &str) -> Vec<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let ours = stats.filter(|stat| stat.contains(&format!("({name})")));
    let used = |stat: String| {
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    ours.map(used).collect()
}

/// Nextest gives each test its own process, so that the threads found are this test's.
#[test]
#[cfg(target_os = "linux")]
fn idle_threads_sleep_and_stop_with_their_owner() {
    let name = "decoder-7";
    let mut lockstep = Lockstep::new(8).unwrap();
    lockstep.run(&|worker| worker.share(100, 1, |_| std::thread::sleep(Duration::from_micros(100))));
    let before = ticks(name);
    assert_eq!(before.len(), 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ticks(name), before);
    let begin = Instant::now();
    drop(lockstep);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(ticks(name).is_empty());
}
