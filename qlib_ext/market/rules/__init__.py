"""What an exchange allows and what it charges, by board, status and date."""
