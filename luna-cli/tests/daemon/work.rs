//! Queues: bounds, fairness, scaling, the daemon's end.

use super::{
    Server, picture, until,
    wire::{moonlet, pool},
};
use luna_core::{
    ErrorKind,
    client::{CallOptions, Client, ClientSettings},
    protocol::{Fault, Ping, Reason, Shutdown, TensorRef, VaeEncode, VaeEncoded},
};
use std::{sync::Mutex, thread, time::Duration};

fn named(server: &Server, name: &str) -> Client {
    let mut settings = ClientSettings::default();
    settings.name = Some(name.to_owned());
    settings.reconnect_for = Duration::ZERO;
    Client::connect(server.address.clone(), settings).unwrap()
}

fn warm(client: &Client) {
    client.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).unwrap();
}

/// A request that takes a while.
fn begin(client: &Client, side: usize) -> luna_core::client::Pending<VaeEncoded> {
    let image = picture(side, side);
    client.start(&moonlet(), &[TensorRef::f32("pixels", &image.shape(), image.data())]).unwrap()
}

#[test]
fn past_the_bound_a_client_is_told_busy_at_once_and_when_to_come_back() {
    let server = Server::start("--pool vae=1 --queue 2");
    let client = named(&server, "a");
    warm(&client);
    let under_way = [begin(&client, 768), begin(&client, 64)];
    until("the worker", || pool(&client, "vae")["queue_depth"] == 1);
    let error = client.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).map(drop).unwrap_err();
    // At once: what was there before is there still.
    assert_eq!(pool(&client, "vae")["queue_depth"], 1);
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(Fault::within(&error).unwrap().retry_after_ms.unwrap() >= 20);
    // What is quick is answered all the same.
    client.call(&Ping {}, &[]).unwrap();
    for pending in under_way {
        pending.wait().unwrap();
    }
    // A client that waits gets its turn.
    let mut settings = ClientSettings::default();
    settings.wait_when_busy = true;
    settings.reconnect_for = Duration::from_secs(300);
    let patient = Client::connect(server.address.clone(), settings).unwrap();
    let held = [begin(&client, 768), begin(&client, 64)];
    until("the queue", || pool(&client, "vae")["queue_depth"] == 1);
    patient.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).unwrap();
    held.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    assert!(pool(&client, "vae")["refused"].as_u64().unwrap() >= 1);
}

#[test]
fn a_client_with_many_requests_does_not_keep_another_waiting() {
    let server = Server::start("--pool vae=1");
    let (greedy, modest) = (named(&server, "greedy"), named(&server, "modest"));
    warm(&greedy);
    let held = begin(&greedy, 768);
    let many: Vec<_> = (0..12).map(|_| begin(&greedy, 128)).collect();
    until("the queue", || pool(&modest, "vae")["queue_depth"] == 12);
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            begin(&modest, 32).wait().unwrap();
            order.lock().unwrap().push("modest");
        });
        for pending in many {
            scope.spawn(|| {
                pending.wait().unwrap();
                order.lock().unwrap().push("greedy");
            });
        }
    });
    held.wait().unwrap();
    let order = order.into_inner().unwrap();
    let place = order.iter().position(|name| *name == "modest").unwrap();
    assert!(place <= 3, "{order:?}");
}

#[test]
fn pools_grow_under_a_backlog_and_shrink_when_idle() {
    let server = Server::start("--pool vae=1..3 --idle 1");
    let client = named(&server, "a");
    warm(&client);
    assert_eq!(pool(&client, "vae")["active_workers"], 1);
    let under_way: Vec<_> = (0..8).map(|_| begin(&client, 256)).collect();
    until("growth", || pool(&client, "vae")["active_workers"].as_u64().unwrap() > 1);
    for pending in under_way {
        pending.wait().unwrap();
    }
    until("shrinking", || pool(&client, "vae")["active_workers"] == 1);
    assert_eq!(pool(&client, "vae")["worker_ids"].as_array().unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn sigterm_lets_accepted_work_finish_and_refuses_new_work() {
    let mut server = Server::start("--pool vae=1");
    let client = named(&server, "a");
    warm(&client);
    let (running, waiting) = (begin(&client, 768), begin(&client, 64));
    until("the queue", || pool(&client, "vae")["queue_depth"] == 1);
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("draining", || super::wire::status(&client)["status"] == "draining");
    let error = client.vae_encode(&picture(16, 16), &moonlet(), &CallOptions::default()).map(drop).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::Draining), "{error}");
    running.wait().unwrap();
    waiting.wait().unwrap();
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn what_does_not_finish_in_time_is_told_so() {
    let mut server = Server::start("--pool vae=1 --drain 1");
    let client = named(&server, "a");
    warm(&client);
    let image = picture(3072, 3072);
    let request = VaeEncode { never_tiled: true, memory_limit: Some(1 << 40), ..moonlet() };
    let long = client.start(&request, &[TensorRef::f32("pixels", &image.shape(), image.data())]).unwrap();
    client.call(&Shutdown {}, &[]).unwrap();
    let error = long.wait().map(drop).unwrap_err();
    assert_eq!(Fault::within(&error).unwrap().reason, Some(Reason::Draining), "{error}");
    assert_eq!(server.ended(), Some(0));
}
