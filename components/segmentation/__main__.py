from components.core.main import main

main("components.segmentation")
