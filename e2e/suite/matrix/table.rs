// SPDX-License-Identifier: Apache-2.0
//! What came of each cell: compared with docs/compatibility.md, or written into it.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{Cell, Door, Place, ROWS, Row, story::Outcome};

const BEGIN: &str = "<!-- matrix: made by e2e/compatibility.sh -->\n";
const END: &str = "<!-- matrix: end -->\n";

/// Everything that was seen in this run.
#[derive(Default)]
struct Seen {
    cells: BTreeMap<(Place, usize, Door), Outcome>,
    versions: BTreeMap<usize, String>,
    containerd: String,
}

static SEEN: Mutex<Option<Seen>> = Mutex::new(None);

/// Keeps the outcome of a cell. Fails the case where the document says another one,
/// unless it is being written.
pub(super) fn cell(cell: Cell, outcome: Outcome) {
    let word = word(&outcome).to_owned();
    seen(|all| {
        all.cells
            .insert((cell.place, number(cell.row), cell.door), outcome.clone())
    });
    if env::var_os("AV_E2E_COMPATIBILITY").is_some() {
        return;
    }
    let text = fs::read_to_string(document()).expect("the document is there");
    let written = written(&text, cell);
    assert_eq!(
        written.as_deref(),
        Some(&*word),
        "{cell}: docs/compatibility.md says so, and what was seen is {outcome:?}; e2e/compatibility.sh writes it anew"
    );
}

/// Keeps of which version the runtime and containerd were.
pub(super) fn versions(row: Row, runtime: String, containerd: String) {
    seen(|all| {
        all.versions.insert(number(row), runtime);
        all.containerd = containerd;
    });
}

/// Writes the table into the document that AV_E2E_COMPATIBILITY names, and what was seen
/// to the file that AV_E2E_MATRIX names, a line a cell.
pub(crate) fn write() {
    let text = |name| env::var_os(name).map(PathBuf::from);
    if let Some(file) = text("AV_E2E_MATRIX") {
        fs::write(file, seen(|all| lines(all))).expect("AV_E2E_MATRIX can be written");
    }
    if let Some(file) = text("AV_E2E_COMPATIBILITY") {
        let before = fs::read_to_string(&file).expect("the document is there");
        let (head, rest) = before.split_once(BEGIN).expect("the table has a beginning");
        let (_, tail) = rest.split_once(END).expect("the table has an end");
        let every = |all: &mut Seen| {
            (0..ROWS.len()).all(|at| all.cells.contains_key(&(Place::Ctr, at, Door::Hook)))
        };
        assert!(
            seen(every),
            "not every runtime was there: the document stays as it is"
        );
        let table = seen(|all| table(all));
        fs::write(file, format!("{head}{BEGIN}\n{table}\n{END}{tail}")).expect("it can be written");
    }
}

fn seen<T>(with: impl FnOnce(&mut Seen) -> T) -> T {
    let mut all = SEEN.lock().unwrap_or_else(|e| e.into_inner());
    with(all.get_or_insert_default())
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md")
}

fn number(row: Row) -> usize {
    let found = ROWS.iter().position(|r| *r == row);
    found.expect("it is one of them")
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Works => "works",
        Outcome::Refused(_) => "refused",
        Outcome::Impossible(_) => "no",
    }
}

/// What the document's table has in this cell, without the number of its reason.
fn written(text: &str, cell: Cell) -> Option<String> {
    let (_, rest) = text.split_once(BEGIN)?;
    let (table, _) = rest.split_once(END)?;
    let head = format!("| {} | {} |", cell.place, cell.row.name);
    let line = table.lines().find(|l| l.starts_with(&head))?;
    let column = line[head.len()..].split('|').nth(column(cell.door))?;
    column.split_whitespace().next().map(str::to_owned)
}

fn column(door: Door) -> usize {
    let found = Door::ALL.iter().position(|d| *d == door);
    found.expect("it is one of them")
}

fn table(all: &Seen) -> String {
    let mut text = "| where | OCI runtime |".to_owned();
    for door in Door::ALL {
        text += &format!(" {door} |");
    }
    text += "\n|---|---|---|---|---|---|\n";
    let mut reasons: Vec<String> = Vec::new();
    for place in Place::ALL {
        for (at, row) in ROWS.iter().enumerate() {
            if !all.cells.keys().any(|(p, r, _)| (*p, *r) == (place, at)) {
                continue;
            }
            text += &format!("| {place} | {} |", row.name);
            for door in Door::ALL {
                let outcome = all.cells.get(&(place, at, door));
                text += &shown(outcome, &mut reasons);
            }
            text += "\n";
        }
    }
    text += "\n";
    for (number, reason) in reasons.iter().enumerate() {
        text += &format!("{}. {reason}\n", number + 1);
    }
    let versions: Vec<String> = all.versions.values().cloned().collect();
    text + &format!(
        "\nSeen with containerd {}, {}, on Linux {}.\n",
        all.containerd,
        versions.join(", "),
        kernel()
    )
}

fn shown(outcome: Option<&Outcome>, reasons: &mut Vec<String>) -> String {
    let Some(outcome) = outcome else {
        return " – |".to_owned();
    };
    let reason = match outcome {
        Outcome::Works => return " works |".to_owned(),
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::Impossible(reason) => reason.clone(),
    };
    let at = reasons.iter().position(|r| *r == reason);
    let at = at.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    format!(" {} ({}) |", word(outcome), at + 1)
}

fn lines(all: &Seen) -> String {
    let mut text =
        "where\truntime\tdoor\toutcome\treason\tversion\tcontainerd\tkernel\n".to_owned();
    for ((place, row, door), outcome) in &all.cells {
        let reason = match outcome {
            Outcome::Works => "",
            Outcome::Refused(reason) | Outcome::Impossible(reason) => reason,
        };
        let version = all.versions.get(row).map_or("", String::as_str);
        text += &format!(
            "{place}\t{}\t{door}\t{}\t{reason}\t{version}\t{}\t{}\n",
            ROWS[*row].name,
            word(outcome),
            all.containerd,
            kernel()
        );
    }
    text
}

/// Without what the machine's maker has added.
fn kernel() -> String {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    release.split('-').next().unwrap_or_default().to_owned()
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.place, self.row.name, self.door)
    }
}
