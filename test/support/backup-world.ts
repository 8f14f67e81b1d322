/**
 * Servers, and sites that back them up without any data: a script in the place of the agents, with a vault that is a set of names. Tests say
 * what goes wrong. What the real agents do with the data is tested with them.
 */
import assert from 'node:assert/strict'
import { newId } from '#base/ids.ts'
import { Fault } from '#base/fault.ts'
import { findImageByName } from '#control/resources/images.ts'
import { SITE_REFUSED, SITE_UNREACHABLE, type SiteClient } from '#control/sites/client.ts'
import { REGION_DENIED, REGION_UNREACHABLE, type RegionClient } from '#control/sites/regions.ts'
import type { CommandRequest } from '#wire/site/commands.ts'
import type { BackupRequest, ReplicaRequest, RestoreRequest } from '#wire/site/backups.ts'
import { ApiLab, type Reply, SITES } from './api.ts'
import { reportOf } from './group-rows.ts'
import { insertServers } from './server-rows.ts'

export const PROVIDER = 'fc4d5750-22e7-4798-8a46-f48f62c4c1da'
const GIB = 1024 ** 3

/** What an agent was told, newest last. */
export interface Told {
  readonly site: string
  readonly name: string
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into requests of many shapes
  readonly request: any
}

export class ScriptedSites {
  readonly told: Told[] = []
  /** Checkpoints in the vault. */
  readonly vault = new Set<string>()
  /** By checkpoint. */
  readonly labels = new Map<string, Readonly<Record<string, string>>>()
  /** By command: the code that the site refuses it with, or `away`. */
  readonly refusals = new Map<string, string>()
  /** By command: how often it says `running` before it is done. */
  readonly slow = new Map<string, number>()
  readonly #asked = new Map<string, number>()
  /** Names of the volumes in each checkpoint. */
  readonly #volumes = new Map<string, readonly string[]>()
  /** Labels of the copies that were let in, by the checkpoints that they become. */
  readonly #admitted = new Map<string, Readonly<Record<string, string>>>()
  readonly client: SiteClient = {
    command: async (site, name, request) => (await this.#answer(site, name, request)) as never,
    close: async () => {},
  }

  of(name: string): Told[] {
    return this.told.filter((one) => one.name === name)
  }

  async #answer(site: string, name: string, request: unknown): Promise<unknown> {
    this.told.push({ site, name, request })
    const refusal = this.refusals.get(`${site} ${name}`) ?? this.refusals.get(name)
    if (refusal === 'away') throw new Fault(SITE_UNREACHABLE, `telling ${site} ${name}`)
    if (refusal !== undefined) {
      throw new Fault(SITE_REFUSED, `telling ${site} ${name}: ${refusal}`, { refusal })
    }
    switch (name) {
      case 'backup.start':
        return this.#backup(request as BackupRequest)
      case 'restore.start':
        return this.#restore(request as RestoreRequest)
      case 'replica.admit': {
        const { replica, labels = {} } = request as CommandRequest<'replica.admit'>
        this.#admitted.set(checkpointOfReplica(replica), labels)
        return { target: { url: 'https://a:1', authority: '', ticket: 't' }, expires_at: 9e15 }
      }
      case 'vault.list': {
        const { checkpoint = '', ids } = request as CommandRequest<'vault.list'>
        if (ids === true) return { checkpoints: [], ids: [...this.vault], damaged: [], more: false }
        const own = this.vault.has(checkpoint) ? (this.labels.get(checkpoint) ?? {}) : undefined
        const labels = this.#admitted.get(checkpoint) ?? own
        return { checkpoints: labels === undefined ? [] : [{ checkpoint, labels }] }
      }
      case 'replica.start':
        return this.#replica(request as ReplicaRequest)
      case 'volume.create':
      case 'volume.limit':
      case 'vault.detach':
        return {}
      case 'vault.attach': {
        const { checkpoint } = request as CommandRequest<'vault.attach'>
        const [volume = ''] = this.#volumes.get(checkpoint) ?? []
        return {
          exports: [{ name: `checkpoint/${checkpoint}/${volume}`, volume, size_bytes: GIB }],
        }
      }
      case 'vault.forget':
        this.vault.delete((request as { checkpoint: string }).checkpoint)
        return {}
      case 'vault.verify':
        return {
          ...this.#work('vault.verify', 'one'),
          verify: newId(),
          checkpoints: this.vault.size,
          damages: [],
          damaged_checkpoints: [],
        }
      case 'vault.collect':
        return {
          ...this.#work(name, 'one'),
          collect: newId(),
          checkpoints_deleted: 0,
          freed_bytes: 0,
          waiting_bytes: 0,
        }
      case 'server.stop':
        return power('off')
      case 'server.start':
        return power('running')
      case 'server.define':
        return power('off')
      default:
        throw new Fault(SITE_REFUSED, `${name} is not in the script`, { refusal: 'UNKNOWN' })
    }
  }

  #work(name: string, id: string) {
    const key = `${name} ${id}`
    const asked = (this.#asked.get(key) ?? 0) + 1
    this.#asked.set(key, asked)
    const done = asked > (this.slow.get(name) ?? 0)
    const state = done ? 'done' : 'running'
    const figures = { total_bytes: 2 * GIB, done_bytes: done ? 2 * GIB : GIB, duration_ms: 1_000 }
    return { state, code: null, reason: null, ...figures } as const
  }

  #backup({ backup, parent, names, labels }: BackupRequest) {
    const work = this.#work('backup.start', backup)
    const checkpoint = `c${backup.slice(1)}`
    this.#volumes.set(checkpoint, names)
    if (work.state === 'done') this.vault.add(checkpoint)
    this.labels.set(checkpoint, labels)
    return {
      ...work,
      backup,
      checkpoint: work.state === 'done' ? checkpoint : null,
      taken_at: Date.now(),
      stall_ms: 1,
      read_bytes: GIB,
      stored_bytes: GIB / 2,
      manner: parent !== null && this.vault.has(parent) ? 'changes' : 'full',
    }
  }

  #restore({ restore, checkpoint }: RestoreRequest) {
    if (!this.vault.has(checkpoint)) {
      throw new Fault(SITE_REFUSED, 'no checkpoint', { refusal: 'CHECKPOINT_UNKNOWN' })
    }
    return { ...this.#work('restore.start', restore), restore, verified: true }
  }

  #replica({ replica }: ReplicaRequest) {
    const work = this.#work('replica.start', replica)
    return {
      ...work,
      replica,
      checkpoint: work.state === 'done' ? checkpointOfReplica(replica) : null,
      sent_bytes: 100,
      missing_bytes: 100,
    }
  }
}

const checkpointOfReplica = (replica: string): string => `d${replica.slice(1)}`

const power = (state: string) => ({
  server: newId(),
  generation: 1,
  power: state,
  power_since: Date.now(),
  reason: null,
  disks: [],
  nics: [],
  releasing: [],
})

export class BackupWorld {
  readonly lab: ApiLab
  readonly sites: ScriptedSites
  readonly project: string
  token: string
  readonly #image: string

  private constructor(lab: ApiLab, sites: ScriptedSites, token: string, image: string) {
    this.lab = lab
    this.sites = sites
    this.project = lab.admin.project_id
    this.token = token
    this.#image = image
  }

  /** The engine runs. `regions`: in the place of others. */
  static async start(
    options: { readonly regions?: RegionClient; readonly database?: string } = {},
  ): Promise<BackupWorld> {
    const sites = new ScriptedSites()
    const lab = await ApiLab.start({ sites: sites.client, ...options })
    const token = await lab.adminToken()
    const headers = { 'x-auth-token': token }
    // The first look makes the default networks.
    await lab.call({ url: `/v1/${lab.admin.project_id}/vpcs`, headers })
    const image = await findImageByName(lab.store.db, 'holdfast-tiny')
    for (const site of SITES) await lab.agents.receive(reportOf(site, []))
    lab.operations.start()
    return new BackupWorld(lab, sites, token, image?.id ?? '')
  }

  async stop(): Promise<void> {
    await this.lab.stop()
  }

  /** Time passes. Tokens end meanwhile, and sites are heard again. */
  async forward(ms: number): Promise<void> {
    this.lab.clock.advance(ms)
    this.token = await this.lab.adminToken()
    await this.report()
  }

  /** Sites are heard again, as if they had just reported. */
  async report(): Promise<void> {
    for (const site of SITES) await this.lab.agents.receive(reportOf(site, []))
  }

  /** Every answer is held against the contract. */
  async call(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
    token = this.token,
  ): Promise<Reply> {
    return await this.lab.call(
      {
        method,
        url: `/v1/${this.project}/${path}`,
        headers: { 'x-auth-token': token },
        ...(body === undefined ? {} : { body }),
      },
      'csbs',
    )
  }

  async ok(
    method: 'GET' | 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: unknown,
  ): Promise<Reply['body']> {
    const reply = await this.call(method, path, body)
    assert.ok(reply.status === 200 || reply.status === 204, `${method} ${path}: ${reply.text}`)
    return reply.body
  }

  /** Running servers in az1, each with a root disk of 1 GB. */
  async servers(count: number): Promise<{ readonly id: string; readonly volume: string }[]> {
    const { store } = this.lab
    const ids = async () => await store.db.selectFrom('servers').select('id').execute()
    const before = new Set((await ids()).map(({ id }) => id))
    await insertServers(store, this.project, count, this.#image, before.size)
    const made = (await ids()).filter(({ id }) => !before.has(id))
    const found: { id: string; volume: string }[] = []
    for (const { id } of made) {
      const { volume } = await store.db
        .selectFrom('server_disks')
        .select('volume')
        .where('server', '=', id)
        .executeTakeFirstOrThrow()
      found.push({ id, volume })
    }
    return found
  }

  async backUp(server: string, more: object = {}): Promise<Reply['body']> {
    await this.report()
    const path = `providers/${PROVIDER}/resources/${server}/action`
    const { checkpoint } = await this.ok('POST', path, { protect: more })
    await this.settled()
    const { checkpoint_items: items } = await this.ok(
      'GET',
      `checkpoint_items?checkpoint_id=${checkpoint.id}`,
    )
    assert.equal(items.length, 1)
    return items[0]
  }

  async item(id: string): Promise<Reply['body']> {
    return (await this.ok('GET', `checkpoint_items/${id}`)).checkpoint_item
  }

  policy(name: string, servers: readonly string[], definition: object = {}): object {
    return {
      name,
      provider_id: PROVIDER,
      parameters: { common: {} },
      resources: servers.map((id) => ({ id, type: 'OS::Nova::Server', name: 'one' })),
      scheduled_operations: [
        {
          enabled: true,
          operation_type: 'backup',
          operation_definition: definition,
          trigger: { properties: { pattern: pattern('FREQ=DAILY;BYHOUR=3;BYMINUTE=0') } },
        },
      ],
    }
  }

  /** Waits until no operation is left that has not ended. */
  async settled(): Promise<void> {
    for (;;) {
      const left = await this.lab.operations.list({ status: ['pending', 'running'] })
      const [first] = left
      if (first === undefined) return
      // On a slow machine the last report is soon an old one.
      await this.report()
      await this.lab.operations.waitFor(first.id)
    }
  }
}

export const pattern = (rule: string): string =>
  `BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nRRULE:${rule}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n`

/** The other world's API in the place of a region `local-2`; `cut`: it does not answer. */
export class RegionLink {
  target: BackupWorld | null = null
  cut = false
  /** A project there that backups may not go to. */
  closed = ''
  readonly client: RegionClient = {
    names: ['local-2'],
    call: async ({ project, method, path, body }) => {
      const { target } = this
      if (this.cut || target === null) throw new Fault(REGION_UNREACHABLE, path)
      if (project !== target.project) throw new Fault(REGION_DENIED, path)
      await target.report()
      const headers = { 'x-auth-token': target.token }
      const reply = await target.lab.call({ method, url: path, headers, body })
      assert.ok(reply.status < 300, reply.text)
      return reply.body
    },
    mayCopy: async (_region, _source, destination) => destination !== this.closed,
    close: async () => {},
  }
}
