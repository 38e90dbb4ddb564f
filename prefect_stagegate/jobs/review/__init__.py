"""What people read of gates: the inbox, decisions, audits, and trials of other rules. Changes nothing."""
