import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { storeContract } from '../store.contract.ts'
import { openDirStore } from './dir-store.ts'

const root = await mkdtemp(join(tmpdir(), 'holdfast-dir-store-'))
after(() => rm(root, { recursive: true, force: true }))

let count = 0
storeContract('directory', () => openDirStore(join(root, String(count++)), { create: true }))
