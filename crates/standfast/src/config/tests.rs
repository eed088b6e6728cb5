//! Every complaint about a configuration file, one by one.
