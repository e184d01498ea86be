//! The names of the policies and of what they aim at, as they stand in settings and on command lines.

use std::fmt;
use std::str::FromStr;

/// A policy, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyName {
    /// Least recently used leaves first.
    Lru,
    /// W-TinyLFU: a newcomer must be asked for more often than whoever leaves for it.
    Lfu,
    /// S3-FIFO: a small queue sifts newcomers.
    S3Fifo,
    /// SIEVE: one queue, and a hand that spares what was used.
    Sieve,
    /// GreedyDual-Size with frequency: heeds sizes.
    Gdsf,
    /// Ours: heeds sizes and adapts itself.
    #[default]
    Auto,
    /// Nobody leaves for others: what finds no room is not kept.
    None,
}

/// What a policy that can choose aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Objective {
    /// That as many requests as possible are hits.
    #[default]
    Requests,
    /// That as many bytes as possible come from hits.
    Bytes,
}

/// A policy and its objective. Written as `auto` or, where the objective is not `requests`, `auto:bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PolicyChoice {
    /// The policy.
    pub policy: PolicyName,
    /// What it aims at. Of meaning for `gdsf` and `auto`; the others ignore it.
    pub objective: Objective,
}

/// What is not the name of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an eviction policy; it must be one of lru, lfu, s3fifo, sieve, gdsf, auto, none")]
pub struct PolicyNameError(String);

/// What is not an objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an objective; it must be requests or bytes")]
pub struct ObjectiveError(String);

/// What is not a policy with an objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyChoiceError {
    /// What stands before the colon.
    #[error(transparent)]
    Policy(#[from] PolicyNameError),
    /// What stands behind the colon.
    #[error(transparent)]
    Objective(#[from] ObjectiveError),
}

impl PolicyName {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Lru, Self::Lfu, Self::S3Fifo, Self::Sieve, Self::Gdsf, Self::Auto, Self::None];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::S3Fifo => "s3fifo",
            Self::Sieve => "sieve",
            Self::Gdsf => "gdsf",
            Self::Auto => "auto",
            Self::None => "none",
        }
    }
}

impl Objective {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Requests, Self::Bytes];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for PolicyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.objective {
            Objective::Requests => self.policy.fmt(f),
            Objective::Bytes => write!(f, "{}:{}", self.policy, self.objective),
        }
    }
}

impl FromStr for PolicyName {
    type Err = PolicyNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| PolicyNameError(text.to_owned()))
    }
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|word| word.as_str() == text).ok_or_else(|| ObjectiveError(text.to_owned()))
    }
}

impl FromStr for PolicyChoice {
    type Err = PolicyChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (policy, objective) = text.split_once(':').unwrap_or((text, "requests"));
        Ok(Self { policy: policy.parse()?, objective: objective.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for policy in PolicyName::ALL {
            for objective in Objective::ALL {
                let choice = PolicyChoice { policy, objective };
                assert_eq!(choice.to_string().parse(), Ok(choice));
            }
        }
        assert_eq!("auto".parse(), Ok(PolicyChoice::default()));
        assert_eq!("gdsf:bytes".parse::<PolicyChoice>().unwrap().to_string(), "gdsf:bytes");
        assert_eq!("lru:requests".parse::<PolicyChoice>().unwrap().to_string(), "lru");
    }

    #[test]
    fn errors_name_the_valid_words() {
        for (text, error) in [
            ("LRU", "\"LRU\" is not an eviction policy; it must be one of lru, lfu, s3fifo, sieve, gdsf, auto, none"),
            ("", "\"\" is not an eviction policy; it must be one of lru, lfu, s3fifo, sieve, gdsf, auto, none"),
            ("lru:speed", "\"speed\" is not an objective; it must be requests or bytes"),
            ("lru:", "\"\" is not an objective; it must be requests or bytes"),
        ] {
            assert_eq!(text.parse::<PolicyChoice>().unwrap_err().to_string(), error);
        }
    }
}
