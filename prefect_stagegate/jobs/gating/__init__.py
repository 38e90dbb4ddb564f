"""From a version to a target's ref: contract, checks, decision, approval, promotion, rollback."""
