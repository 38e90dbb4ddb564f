"""What people read of gates: inbox, decisions and their reports, audits, and trials of other rules. Changes nothing."""
