"""Both training stages, the token cache between them, and the loop that runs them."""
