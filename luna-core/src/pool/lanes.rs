//! Tasks that wait, in lanes that have their turns one after the other. Enters: tasks. Leaves: the next one. It starts
//! nothing and waits for nobody.

use super::Task;
use std::collections::{HashMap, VecDeque};

/// Names a task that was put into a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    lane: u64,
    number: u64,
}

#[derive(Default)]
pub(super) struct Lanes {
    waiting: HashMap<u64, VecDeque<(u64, Task)>>,
    /// Lanes with tasks, next one first.
    turns: VecDeque<u64>,
    tasks: usize,
    given: u64,
}

impl Lanes {
    pub(super) fn push(&mut self, lane: u64, task: Task) -> Ticket {
        let number = self.given;
        self.given += 1;
        self.tasks += 1;
        let tasks = self.waiting.entry(lane).or_default();
        if tasks.is_empty() {
            self.turns.push_back(lane);
        }
        tasks.push_back((number, task));
        Ticket { lane, number }
    }

    pub(super) fn pop(&mut self) -> Option<Task> {
        let lane = self.turns.pop_front()?;
        let tasks = self.waiting.get_mut(&lane)?;
        let (_, task) = tasks.pop_front()?;
        self.tasks -= 1;
        if tasks.is_empty() {
            self.waiting.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        Some(task)
    }

    pub(super) fn withdraw(&mut self, Ticket { lane, number }: Ticket) -> Option<Task> {
        let tasks = self.waiting.get_mut(&lane)?;
        let place = tasks.iter().position(|(other, _)| *other == number)?;
        let (_, task) = tasks.remove(place)?;
        self.tasks -= 1;
        if tasks.is_empty() {
            self.waiting.remove(&lane);
            self.turns.retain(|other| *other != lane);
        }
        Some(task)
    }

    pub(super) fn len(&self) -> usize {
        self.tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Done = Arc<Mutex<Vec<&'static str>>>;

    fn task(done: &Done, name: &'static str) -> Task {
        let done = done.clone();
        Box::new(move || done.lock().unwrap().push(name))
    }

    fn run(lanes: &mut Lanes) {
        while let Some(task) = lanes.pop() {
            task();
        }
    }

    #[test]
    fn a_long_lane_does_not_keep_the_others_waiting() {
        let (mut lanes, done) = (Lanes::default(), Done::default());
        for name in ["a1", "a2", "a3"] {
            lanes.push(1, task(&done, name));
        }
        lanes.push(2, task(&done, "b1"));
        lanes.push(3, task(&done, "c1"));
        lanes.push(2, task(&done, "b2"));
        assert_eq!(lanes.len(), 6);
        run(&mut lanes);
        assert_eq!(*done.lock().unwrap(), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(lanes.len() == 0 && lanes.waiting.is_empty());
    }

    #[test]
    fn what_is_withdrawn_is_not_run_and_cannot_be_withdrawn_twice() {
        let (mut lanes, done) = (Lanes::default(), Done::default());
        let tickets: Vec<_> = ["a1", "a2"].map(|name| lanes.push(1, task(&done, name))).into();
        let other = lanes.push(2, task(&done, "b1"));
        assert!(lanes.withdraw(tickets[0]).is_some());
        assert!(lanes.withdraw(tickets[0]).is_none());
        assert!(lanes.withdraw(other).is_some());
        assert_eq!(lanes.len(), 1);
        run(&mut lanes);
        assert_eq!(*done.lock().unwrap(), ["a2"]);
        assert!(lanes.withdraw(tickets[1]).is_none());
    }
}
