"""What must hold of every backtest by exchange rules, over thousands of made markets."""

import os

os.environ.setdefault(
    "TQDM_DISABLE", "1"
)  # Qlib shows a bar for each of the backtests; read when tqdm is imported
