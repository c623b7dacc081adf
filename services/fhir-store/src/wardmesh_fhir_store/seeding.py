"""tmp."""


async def seed(settings, patients):
    return 0
