"""The way of a study: one file per durable step, and the one adapter to the job engine."""
