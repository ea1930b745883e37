from components.core.main import main

main("components.toy")
