"""What the measurements of all devices share: inputs, parity of logits, results, the table of devices."""
