import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { LOADS, type LoadName } from './lib/fio.ts'
import { benchApi } from './api.ts'
import { benchBackupLists } from './backup-lists.ts'
import { benchDrill } from './drill.ts'
import { benchFailover } from './failover.ts'
import { benchLatency } from './latency.ts'
import { benchLists } from './lists.ts'
import { benchMemory } from './memory.ts'
import { benchNbd } from './nbd.ts'
import { benchReplication } from './replication.ts'
import { benchResync } from './resync.ts'
import { benchReverse } from './reverse.ts'
import { benchScaling } from './scaling.ts'
import { benchServers } from './servers.ts'
import { benchVault } from './vault.ts'
import { benchSnapshots } from './snapshots.ts'
import { benchVerify } from './verify.ts'

const USAGE = `npm run bench -- QUESTION [options]

  replication    a replicated volume against QEMU's synchronous mirror, link unencrypted and with mTLS
  vault          backup and restore of a 1 GiB image against restic and borg
  nbd            our NBD server without replication against nbdkit and qemu-nbd
  latency        what a link with 0.5 and 2 ms each way costs a client, against TCP ping-pong over it
  resync         first copies and deltas, against disk and link measured in the same run
  failover       from the loss of production until a group of 64 pairs is writable at the other site
  reverse        how long writes wait in a planned switch
  verify         how fast both sites are compared, per core
  memory         what a group and a volume cost an agent, and an agent at rest
  scaling        the same load on 1 to 64 volumes and on 1 to 16 groups
  servers        how long eight protected servers are away when their site is lost
  lists          the 99th percentile of lists of 1000 servers
  backup-lists   the 95th percentile of pages of 100,000 backups
  api            reads and jobs over HTTP with 1000 groups, 10000 pairs and 50 clients at once
  drill          what a drill costs the writes of production, on this file system and on XFS
  snapshots      what taking a snapshot and preserving before-images cost the writers

  --json         one line of JSON per case
  --pairs N      rounds of which the median counts (default 5)
  --runtime S    seconds per sample (default 3)
  --directory D  snapshots: where, for the file system (default the temporary directory)
  --size M       resync: MiB of the volume (default 1024)
  --volumes N    failover, memory, scaling: most pairs (default 64)
  --loads A,B    ${Object.keys(LOADS).join(', ')} (default all)
`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    pairs: { type: 'string', default: '5' },
    runtime: { type: 'string', default: '3' },
    loads: { type: 'string', default: Object.keys(LOADS).join(',') },
    directory: { type: 'string', default: tmpdir() },
    volumes: { type: 'string', default: '64' },
    size: { type: 'string', default: '1024' },
  },
})
const loads = values.loads.split(',').filter((name): name is LoadName => name in LOADS)
const options = {
  json: values.json,
  pairs: Number(values.pairs),
  runtimeS: Number(values.runtime),
  loads,
}
const question = positionals[0]
if (question === 'replication') await benchReplication(options)
else if (question === 'nbd') await benchNbd(options)
else if (question === 'failover') {
  await benchFailover({ ...options, volumes: Number(values.volumes) })
} else if (question === 'reverse') await benchReverse(options)
else if (question === 'verify') await benchVerify(options)
else if (question === 'memory') {
  await benchMemory({ ...options, volumes: Number(values.volumes) })
} else if (question === 'scaling') {
  await benchScaling({ ...options, volumes: Number(values.volumes) })
} else if (question === 'latency') await benchLatency(options)
else if (question === 'resync') await benchResync({ ...options, sizeMib: Number(values.size) })
else if (question === 'lists') await benchLists(options)
else if (question === 'backup-lists') await benchBackupLists(options)
else if (question === 'api') await benchApi(options)
else if (question === 'drill') await benchDrill(options)
else if (question === 'servers') await benchServers(options)
else if (question === 'vault') await benchVault(options)
else if (question === 'snapshots') {
  await benchSnapshots({ ...options, directory: values.directory })
} else {
  process.stdout.write(USAGE)
  process.exitCode = question === undefined ? 0 : 2
}
