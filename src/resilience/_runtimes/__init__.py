"""Where waiting happens: threads for sync calls, asyncio and trio for async ones."""
