"""The room of label stacks and label tables. Sans-IO. Empty yet: `pe` and `p` forward by kernel routes."""
