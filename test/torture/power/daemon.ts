/**
 * The disk of one machine that can lose its power:
 *
 *     node daemon.ts POINT SEED
 *
 * Mounts a file system at POINT and does what it is told on standard input, one word per line; each is answered by one line of
 * JSON. What the disk holds lives in this process. It ends, and the mount with it, when standard input does.
 *
 *     cut       what is not durable is gone, and nothing changes any more until `on`
 *     on        mounted anew, with what is durable
 *     full      no more space; `free`: space again
 */
import { createInterface } from 'node:readline'
import { Random } from '../../../sim/world/random.ts'
import { ForgetfulTree } from './forgetful-tree.ts'
import { FuseMount } from './fuse.ts'

const [point = '', seed = '1'] = process.argv.slice(2)
const tree = new ForgetfulTree()
const random = new Random(Number(seed))
let mount = new FuseMount(tree, point)

async function obey(word: string): Promise<object> {
  switch (word) {
    case 'cut':
      mount.dead = true
      return tree.cut(random)
    case 'on':
      await mount.unmount()
      mount = new FuseMount(tree, point)
      return {}
    case 'full':
    case 'free':
      tree.full = word === 'full'
      return {}
    default:
      return { unknown: word }
  }
}

process.stdout.write('{"ready":true}\n')
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await obey(line))}\n`)
}
await mount.unmount()
process.exit(0)
