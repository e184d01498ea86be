//! Threads that serve: one for each socket of each listener, each with a runtime that uses no other thread.
//!
//! A request that hits is read, answered and written by one thread. What a request starts (a fetch, a refresh) runs on the
//! worker that started it; whoever else waits for it is woken across threads. So a worker that has drained goes on until
//! all have.

use std::future::Future;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Rest before a worker that cannot start tries again, in milliseconds, and how often it does.
const START_REST_MS: u64 = 50;
const START_TRIES: usize = 1_200;

/// Runs each of `lives` on a thread of its own, until all have ended. Dropped before, it ends them, wherever they are.
pub(crate) async fn run<F>(lives: Vec<F>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let abandoned = CancellationToken::new();
    let _guard = abandoned.clone().drop_guard();
    // Cancelled when the last of its holders is gone.
    let all_served = CancellationToken::new();
    let serving = Arc::new(all_served.clone().drop_guard());
    let mut ends = Vec::new();
    for (number, served) in lives.into_iter().enumerate() {
        let serving = Arc::clone(&serving);
        let (abandoned, all_served) = (abandoned.clone(), all_served.clone());
        let (ended, end) = oneshot::channel::<()>();
        let worker = move || {
            let Some(runtime) = runtime(&abandoned) else { return };
            let life = async move {
                served.await;
                drop(serving);
                all_served.cancelled().await;
            };
            runtime.block_on(async {
                tokio::select! {
                    () = life => {}
                    () = abandoned.cancelled() => {}
                }
            });
            // What it was still doing for nobody is not waited for.
            runtime.shutdown_background();
            drop(ended);
        };
        match thread::Builder::new().name(format!("worker-{number}")).spawn(worker) {
            Ok(_) => ends.push(end),
            Err(error) => tracing::error!(%error, "a worker cannot start"),
        }
    }
    drop(serving);
    for end in ends {
        // It is never sent, only dropped.
        let _ = end.await;
    }
}

/// The runtime of a worker. Where there are no descriptors for it, it is tried again: who waits at the worker's socket would be
/// cut off with it. Nothing: nobody wants it any more.
fn runtime(abandoned: &CancellationToken) -> Option<Runtime> {
    for tried in 0..START_TRIES {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => return Some(runtime),
            Err(error) if tried == 0 => {
                tracing::error!(%error, "a worker cannot start; trying again every {START_REST_MS} ms");
            }
            Err(_) if abandoned.is_cancelled() => return None,
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(START_REST_MS));
    }
    tracing::error!("a worker has not started");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_socket_has_a_thread_and_all_are_waited_for() {
        let (tell, told) = std::sync::mpsc::channel();
        let life = |tell: std::sync::mpsc::Sender<_>| async move {
            tell.send(thread::current().name().map(str::to_owned)).expect("told");
        };
        run(vec![life(tell.clone()), life(tell.clone()), life(tell)]).await;
        let mut names: Vec<_> = told.iter().flatten().collect();
        names.sort();
        assert_eq!(names, ["worker-0", "worker-1", "worker-2"]);
    }

    #[tokio::test]
    async fn dropping_it_ends_the_threads() {
        struct Tell(Option<oneshot::Sender<()>>);
        impl Drop for Tell {
            fn drop(&mut self) {
                drop(self.0.take());
            }
        }
        let (ended, end) = oneshot::channel();
        let tell = Tell(Some(ended));
        let running = run(vec![async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        }]);
        let abandoned = tokio::time::timeout(std::time::Duration::from_millis(1), running).await;
        assert!(abandoned.is_err());
        assert!(end.await.is_err());
    }
}
