from loopanimate_training.cli import main

if __name__ == "__main__":
    main()
