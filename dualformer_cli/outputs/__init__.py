"""The front door: results leave."""
