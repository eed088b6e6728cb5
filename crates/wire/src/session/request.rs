//! A request in the queue.

/// Who sent a request to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Client,
    /// We ourselves: the client never sees the answer.
    Proxy,
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// To be let in.
    Start,
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    CloseStatement,
    ClosePortal,
    Execute,
    Sync,
    Query,
    FunctionCall,
}

/// Without the zero byte. The empty name takes no allocation.
pub(super) type Name = Box<[u8]>;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    pub(super) request: Request,
    /// A part of the answer has come.
    pub(super) answered: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    Start,
    Parse(Name),
    Bind {
        portal: Name,
        statement: Name,
    },
    DescribeStatement,
    DescribePortal,
    CloseStatement(Name),
    ClosePortal(Name),
    Execute,
    Sync,
    Query,
    FunctionCall,
    /// CopyDone or CopyFail: it matters only if what is before it turns out to be a COPY.
    CopyEnd,
    /// Nobody asked: the server failed between two requests and says that it is ready again.
    Nothing,
}

impl Request {
    pub(super) fn kind(&self) -> Option<RequestKind> {
        Some(match self {
            Self::Start => RequestKind::Start,
            Self::Parse(_) => RequestKind::Parse,
            Self::Bind { .. } => RequestKind::Bind,
            Self::DescribeStatement => RequestKind::DescribeStatement,
            Self::DescribePortal => RequestKind::DescribePortal,
            Self::CloseStatement(_) => RequestKind::CloseStatement,
            Self::ClosePortal(_) => RequestKind::ClosePortal,
            Self::Execute => RequestKind::Execute,
            Self::Sync => RequestKind::Sync,
            Self::Query => RequestKind::Query,
            Self::FunctionCall => RequestKind::FunctionCall,
            Self::CopyEnd | Self::Nothing => return None,
        })
    }

    /// Whether an error in it makes the server skip to the next Sync.
    pub(super) fn is_extended(&self) -> bool {
        match self {
            Self::Parse(_)
            | Self::Bind { .. }
            | Self::DescribeStatement
            | Self::DescribePortal
            | Self::CloseStatement(_)
            | Self::ClosePortal(_)
            | Self::Execute => true,
            Self::Start
            | Self::Sync
            | Self::Query
            | Self::FunctionCall
            | Self::CopyEnd
            | Self::Nothing => false,
        }
    }

    /// What it holds beside the entry itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bind { portal, statement } => portal.len() + statement.len(),
            Self::Parse(name) | Self::CloseStatement(name) | Self::ClosePortal(name) => name.len(),
            _ => 0,
        }
    }
}
