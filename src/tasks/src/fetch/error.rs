//! Why bytes did not come.

use std::io;

use speediso_image::decode::DecodeError;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{ImageSource, shown_url};

/// Carried inside of `io::Error` through the decoders.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// May pass by itself: no answer, or one that says "not now".
    #[error("{0}")]
    Unreachable(String),
    #[error("the server sent {got} of {announced} bytes and ended")]
    Short { got: u64, announced: u64 },
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the server sent nothing, or next to nothing, for {0} s")]
    Stalled(u64),
    #[error("the server sent more than the {announced} bytes it announced")]
    Long { announced: u64 },
    #[error("it has more than the {0} bytes that such a file may have")]
    TooLong(u64),
    #[error("{0}")]
    Refused(String),
    #[error("what the server has changed while it was fetched: {0}")]
    Changed(String),
    #[error("the server does not send parts of a file")]
    NoRanges,
    #[error("cancelled")]
    Cancelled,
}

impl FetchError {
    /// The one that came through a decoder, if that is what happened.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        DecodeError::source_of(error).get_ref()?.downcast_ref()
    }

    /// Whether asking again may help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Short { .. } | Self::Broken(_) | Self::Stalled(_))
    }

    fn code(&self) -> FaultCode {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Stalled(_) => FaultCode::ImageUnreachable,
            Self::Short { .. } => FaultCode::ImageTruncated,
            Self::Long { .. } => FaultCode::ImageTrailingData,
            Self::TooLong(_) => FaultCode::ImageFormat,
            Self::Refused(_) | Self::NoRanges => FaultCode::ImageRefused,
            Self::Changed(_) => FaultCode::ImageChanged,
            Self::Cancelled => FaultCode::Cancelled,
        }
    }

    pub(crate) fn fault(&self, image: &ImageSource) -> Fault {
        self.fault_at(&image.url)
    }

    pub(crate) fn fault_at(&self, url: &str) -> Fault {
        Fault::new(self.code(), format!("fetching {}: {self}", shown_url(url)))
    }
}
