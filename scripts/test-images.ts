/** Makes the images that tests boot, or says why it cannot. Never fails: without them tests are skipped, and say so. */
import { testImages } from '../test/support/images.ts'

const made = await testImages()
console.error(
  'skip' in made
    ? `holdfast: ${made.skip}; tests that boot it are skipped`
    : `holdfast: the images that tests boot are in ${made.directory}`,
)
