// SPDX-License-Identifier: Apache-2.0
//! What can happen next.

/// One event. Numbers name volumes and nodes, in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Resume(u8),
    Suspend,
    Crash,
    Delete,
    /// The step that is planned for the volume: the intent is recorded, the call
    /// is sent.
    Send(u8),
    /// What was sent happens.
    Effect(u8),
    /// The answer comes.
    Answer(u8),
    /// No answer comes, whether it happened or not.
    Lose(u8),
    /// The answer is a final no, and nothing happened.
    Refuse(u8),
    /// A pod starts with a grant, however old; or its last process ends.
    Pod(u8, u8, u8),
    PodEnds(u8, u8),
    /// A node is cut off, goes off, or is back.
    Cut(u8),
    Off(u8),
    Back(u8),
    Fence(u8),
    /// The control plane dies and comes back.
    Die,
    /// The driver attaches once more where it had detached, and lists it.
    Ghost(u8, u8),
}

/// How much may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    pub verbs: u32,
    pub deaths: u32,
    /// Answers that are lost or no, and attachments that come from nowhere.
    pub lost: u32,
    pub nodes: u32,
}

impl Budget {
    pub fn is_within(&self, other: &Self) -> bool {
        self.verbs <= other.verbs
            && self.deaths <= other.deaths
            && self.lost <= other.lost
            && self.nodes <= other.nodes
    }

    /// All that are.
    pub fn within(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for verbs in 0..=self.verbs {
            for deaths in 0..=self.deaths {
                for lost in 0..=self.lost {
                    all.extend((0..=self.nodes).map(|nodes| Self {
                        verbs,
                        deaths,
                        lost,
                        nodes,
                    }));
                }
            }
        }
        all
    }

    pub fn sum(&self) -> usize {
        (self.verbs + self.deaths + self.lost + self.nodes) as usize
    }
}

impl Op {
    /// The volume that it is about alone, if it is.
    pub fn volume(self) -> Option<usize> {
        match self {
            Self::Send(v)
            | Self::Effect(v)
            | Self::Answer(v)
            | Self::Lose(v)
            | Self::Refuse(v)
            | Self::Pod(v, ..)
            | Self::PodEnds(v, _)
            | Self::Ghost(v, _) => Some(v.into()),
            _ => None,
        }
    }

    /// The same of the first volume.
    pub fn of_first(self) -> Self {
        self.of(0)
    }

    /// The same of the second volume.
    pub fn of_second(self) -> Self {
        self.of(1)
    }

    fn of(mut self, volume: u8) -> Self {
        match &mut self {
            Self::Send(v)
            | Self::Effect(v)
            | Self::Answer(v)
            | Self::Lose(v)
            | Self::Refuse(v)
            | Self::Pod(v, ..)
            | Self::PodEnds(v, _)
            | Self::Ghost(v, _) => *v = volume,
            _ => {}
        }
        self
    }

    /// What it costs; none: it is beyond the budget.
    pub fn pay(self, mut left: Budget) -> Option<Budget> {
        let purse = match self {
            Self::Resume(_) | Self::Suspend | Self::Crash | Self::Delete => &mut left.verbs,
            Self::Lose(_) | Self::Refuse(_) | Self::Ghost(..) => &mut left.lost,
            Self::Cut(_) => &mut left.nodes,
            Self::Die => &mut left.deaths,
            _ => return Some(left),
        };
        *purse = purse.checked_sub(1)?;
        Some(left)
    }
}
