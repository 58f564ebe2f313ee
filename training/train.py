from loopanimate_training.cli import main

main()
