"""What happens to every request, whichever API it speaks: its key, its body, its errors."""
