//! Health reports to the WireServer, in both of its doors' languages.
