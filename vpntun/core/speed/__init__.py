"""Model of a speed test between two vpntuns: how fast to send, how fast it arrived, and how long round trips take."""
