"""Image quality: protocol check, image metrics, verdicts and the gate."""
