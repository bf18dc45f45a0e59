//! A process that saves pictures durably is killed a hundred times, at moments nobody chose: nothing that was taken in
//! is lost, nothing is written twice, and no half file is left.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use luna_core::{Limits, picture::read_picture};

const KILLS: u32 = 100;
const JOBS: u32 = 4;
const MOST_SECONDS: u64 = 60;

/// Starts the saver and kills it after a while, or lets it end; returns the tags of the jobs it had taken in.
fn run(folder: &Path, first: u32, count: u32, life: Option<Duration>) -> (Vec<u32>, bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_durable_saver"))
        .args([folder.as_os_str(), first.to_string().as_ref(), count.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || stdout.lines().map_while(Result::ok).collect::<Vec<_>>());
    if let Some(life) = life {
        thread::sleep(life);
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let lines = reader.join().unwrap();
    let ended = lines.last().is_some_and(|line| line == "end");
    assert!(life.is_some() || status.success() && ended, "the last run must end: {status}");
    (lines.iter().filter_map(|line| line.parse().ok()).collect(), ended)
}

#[test]
fn a_hundred_kills_lose_nothing_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut taken = Vec::new();
    let mut ended = 0;
    let mut state = 0x2545_f491_u32;
    for round in 0..KILLS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Up to 64 ms: from before the first job to after the last.
        let life = Duration::from_micros(u64::from(state >> 16));
        let (tags, end) = run(folder.path(), round * JOBS * 2, JOBS, Some(life));
        taken.extend(tags);
        ended += u32::from(end);
        assert!(start.elapsed() < Duration::from_secs(MOST_SECONDS), "{round} rounds took {:?}", start.elapsed());
    }
    run(folder.path(), KILLS * JOBS * 2, 0, None);

    let mut found: HashMap<u32, u32> = HashMap::new();
    for entry in fs::read_dir(folder.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.extension().is_some_and(|extension| extension == "png"), "left behind: {}", path.display());
        let image = read_picture(&path, &Limits::default()).unwrap();
        let bytes: Vec<u8> = image.data()[..4].iter().map(|value| (value * 255.0).round() as u8).collect();
        *found.entry(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).or_default() += 1;
    }
    assert!(found.values().all(|&times| times == 1), "written twice: {found:?}");
    let lost: Vec<_> = taken.iter().flat_map(|tag| [*tag, tag + 1]).filter(|tag| !found.contains_key(tag)).collect();
    assert!(lost.is_empty(), "taken in and lost: {lost:?}");
    // A job is whole or not there, also where the process died before it could say that it took it in.
    assert!(found.keys().all(|tag| found.contains_key(&(tag ^ 1))));
    let spool: Vec<_> =
        fs::read_dir(folder.path().join("spool")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(spool, ["lock"], "the spool is empty at the end");
    // That the kills fell into the work, and not all before or after it.
    assert!(ended < KILLS && found.len() > KILLS as usize, "{ended} runs ended, {} pictures", found.len());
    println!("{} pictures, {} of them acknowledged, {ended} runs ended by themselves", found.len(), taken.len() * 2);
}
