from tests.pipelines.golden import regenerate

regenerate()
