//! Native nftables tables, whoever reads and writes them: the program, or this one over netlink.

use super::ApplyError;
use crate::backend::kernel::Kernel;
use crate::backend::nft::Nft;
use crate::nft;
use crate::plan::NativeChain;
use crate::saved::Verdict;

/// Our tables as they were found, and the way to change them. A change is one transaction.
pub(super) enum Native {
    Program(Nft),
    Kernel(Kernel),
}

impl Native {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Native::Program(nft) => nft.listing.is_empty(),
            Native::Kernel(kernel) => kernel.is_empty(),
        }
    }

    pub(super) fn compare(&self, wanted: &[NativeChain]) -> Verdict {
        match self {
            Native::Program(nft) => nft.listing.compare(wanted),
            Native::Kernel(kernel) => kernel.compare(wanted),
        }
    }

    pub(super) fn tproxy_mark(&self) -> Option<u32> {
        match self {
            Native::Program(nft) => nft.listing.tproxy_mark(),
            Native::Kernel(kernel) => kernel.tproxy_mark(),
        }
    }

    /// What is there now, for people. Over netlink: that the kernel has taken what was wanted says it.
    pub(super) fn list(&self) -> Result<String, ApplyError> {
        match self {
            Native::Program(nft) => Ok(nft.list()?),
            Native::Kernel(_) => {
                let now = Kernel::look()?;
                Ok(now.summary())
            }
        }
    }

    /// Puts `wanted` in place of all our tables.
    pub(super) fn replace(&self, wanted: &[NativeChain]) -> Result<(), ApplyError> {
        match self {
            Native::Program(nft) if wanted.is_empty() => nft.run_file(&nft::cleanup())?,
            Native::Program(nft) => nft.run_file(&nft::render(wanted))?,
            Native::Kernel(kernel) => kernel.replace(wanted)?,
        }
        Ok(())
    }

    /// Puts back what was found.
    pub(super) fn put_back(&self) -> Result<(), ApplyError> {
        match self {
            Native::Program(nft) => nft.run_file(&nft.listing.file())?,
            Native::Kernel(kernel) => kernel.put_back()?,
        }
        Ok(())
    }

    /// How [`Native::replace`] goes about it, in the log.
    pub(super) fn describe(&self, wanted: &[NativeChain]) -> String {
        let file = if wanted.is_empty() {
            nft::cleanup()
        } else {
            nft::render(wanted)
        };
        let how = match self {
            Native::Program(_) => "nft -f -",
            Native::Kernel(_) => "one batch over netlink, in the words of nft",
        };
        format!("{how}\n{}", file.trim_end())
    }
}
