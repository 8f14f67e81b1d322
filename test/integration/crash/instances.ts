/** Protected instances over a control plane that dies at every boundary of what happens to them. */
import assert from 'node:assert/strict'
import { imageId } from '#control/resources/images.ts'
import { defaultSubnetId } from '#control/resources/networks.ts'
import type { FakeGuests } from '../../support/fake-guests.ts'
import { PROJECT } from '../../support/region-parts.ts'
import type { Answer, Lives } from './lives.ts'

const SERVERS = '/v2.1/{project}/servers'
const INSTANCES = '/v1/{project}/protected-instances'
const PAIRS = '/v1/{project}/replications'

type Guests = Readonly<Record<'az1' | 'az2', FakeGuests>>

export class ProtectedServer {
  readonly #lives: Lives
  readonly #guests: Guests
  readonly #group: string
  /** The server at the first site, and the one at the other. */
  #source = ''
  #target = ''
  #id = ''

  private constructor(lives: Lives, guests: Guests, group: string) {
    this.#lives = lives
    this.#guests = guests
    this.#group = group
  }

  /** A running server that becomes a protected instance of the group, alone in a batch. */
  static async make(lives: Lives, guests: Guests, group: string): Promise<ProtectedServer> {
    const made = new ProtectedServer(lives, guests, group)
    made.#source = await made.#server('shielded')
    const batch = {
      protected_instances: {
        name_prefix: 'shielded',
        server_group_id: group,
        servers: [{ server_id: made.#source }],
      },
    }
    await lives.change('POST', `${INSTANCES}/batch`, batch, () => made.#listed('shielded-0001'))
    const shown = await made.#settled('shielded-0001', 'available')
    made.#id = shown.id
    made.#target = shown.target_server
    assert.equal(shown.source_server, made.#source)
    return made
  }

  get id(): string {
    return this.#id
  }

  /** Everything that happens to an instance whose group is available. */
  async change(pair: string): Promise<void> {
    const lives = this.#lives
    const path = `${INSTANCES}/${this.#id}`
    const pairIs = async (attached: boolean) => {
      const shown = await lives.get(`${PAIRS}/${pair}`, 'replication')
      if (shown === null) return null
      const busy = shown.status === 'attaching' || shown.status === 'detaching'
      return { busy, so: shown.attachment.length > 0 === attached }
    }
    const until = async (what: string, attached: boolean) =>
      await lives.until(what, async () => {
        const now = await pairIs(attached)
        return now !== null && now.so && !now.busy ? true : null
      })
    const attach = { replicationAttachment: { replication_id: pair, device: '/dev/vdb' } }
    await lives.change('POST', `${path}/attachreplication`, attach, async () => {
      const now = await pairIs(true)
      return now === null ? null : now.so
    })
    await until('the pair is attached', true)
    assert.equal(this.#guests.az1.guests.get(this.#source)?.disks.length, 2)
    await lives.change('DELETE', `${path}/detachreplication/${pair}`, undefined, async () => {
      const now = await pairIs(false)
      return now === null ? null : now.so || now.busy
    })
    await until('the pair is detached', false)
    assert.equal(this.#guests.az1.guests.get(this.#source)?.disks.length, 1)

    const nics = () => this.#guests.az1.guests.get(this.#source)?.definition.nics ?? []
    const busy = async (status: string) => (await this.#show())?.status === status
    const nic = { subnet_id: defaultSubnetId(PROJECT) }
    await lives.change(
      'POST',
      `${path}/nic`,
      nic,
      async () => (await busy('nic-creating')) || nics().length === 2,
    )
    await this.#settled('shielded-0001', 'available')
    const added = nics()[1]?.port
    assert.ok(added !== undefined && nics().length === 2)
    await lives.change(
      'POST',
      `${path}/nic/delete`,
      { nic_id: added },
      async () => (await busy('nic-deleting')) || nics().length === 1,
    )
    await this.#settled('shielded-0001', 'available')
    assert.equal(nics().length, 1)

    const resize = { resize: { dr_flavorRef: 't2.small' } }
    const flavor = () => this.#guests.az2.guests.get(this.#target)?.definition.memory_mb
    await lives.change(
      'POST',
      `${path}/resize`,
      resize,
      async () => (await busy('resizing')) || flavor() === 512,
    )
    await this.#settled('shielded-0001', 'available')
    assert.equal(flavor(), 512)
  }

  /** The server of a site runs, with the identity, and the other one does not. */
  async runsAt(site: 'az1' | 'az2'): Promise<void> {
    const [here, there] = [this.#at(site), this.#at(site === 'az1' ? 'az2' : 'az1')]
    await this.#lives.until(`the server runs at ${site}`, async () =>
      (await this.#nova(here.id))?.status === 'ACTIVE' ? true : null,
    )
    assert.equal(here.guest()?.power, 'running')
    assert.equal(there.guest()?.power, 'off')
    assert.equal(here.guest()?.definition.nics.length, 1)
  }

  async stopAt(site: 'az1' | 'az2'): Promise<void> {
    const { id } = this.#at(site)
    const isOff = async () => {
      const server = await this.#nova(id)
      return server === null
        ? null
        : server.status === 'SHUTOFF' || server['OS-EXT-STS:task_state'] !== null
    }
    await this.#lives.change('POST', `${SERVERS}/${id}/action`, { 'os-stop': null }, isOff)
    await this.#lives.until('the server is off', async () => {
      const server = await this.#nova(id)
      const off = server?.status === 'SHUTOFF' && server['OS-EXT-STS:task_state'] === null
      return off ? true : null
    })
  }

  /** The instance goes with the server at the second site, alone in a batch; then the other server. */
  async remove(): Promise<void> {
    const lives = this.#lives
    const body = { protected_instances: [{ id: this.#id }], delete_target_server: true }
    const gone = async () => {
      const answer = await lives.ask('GET', `${INSTANCES}/${this.#id}`)
      if (answer === null) return null
      return answer.status === 404 || answer.body.protected_instance.status === 'deleting'
    }
    await lives.change('POST', `${INSTANCES}/delete`, body, gone)
    await lives.until('the instance is gone', async () => {
      const answer = await lives.ask('GET', `${INSTANCES}/${this.#id}`)
      return answer?.status === 404 ? true : null
    })
    assert.equal(this.#guests.az2.guests.has(this.#target), false)
    const path = `${SERVERS}/${this.#source}`
    await lives.change('DELETE', path, undefined, async () => {
      const answer = await lives.ask('GET', path)
      if (answer === null) return null
      return answer.status === 404 || answer.body.server['OS-EXT-STS:task_state'] === 'deleting'
    })
    await lives.until('its server is gone', async () => {
      const answer = await lives.ask('GET', path)
      return answer?.status === 404 ? true : null
    })
  }

  #at(site: 'az1' | 'az2') {
    const id = site === 'az1' ? this.#source : this.#target
    return { id, guest: () => this.#guests[site].guests.get(id) }
  }

  async #nova(id: string): Promise<Answer['body']> {
    return await this.#lives.get(`${SERVERS}/${id}`, 'server')
  }

  async #show(): Promise<Answer['body']> {
    return await this.#lives.get(`${INSTANCES}/${this.#id}`, 'protected_instance')
  }

  async #find(name: string): Promise<Answer['body']> {
    const path = `${INSTANCES}?server_group_id=${this.#group}&name=${name}`
    const rows = await this.#lives.get(path, 'protected_instances')
    return rows === null ? null : (rows[0] ?? undefined)
  }

  async #listed(name: string): Promise<boolean | null> {
    const found = await this.#find(name)
    return found === null ? null : found !== undefined
  }

  async #settled(name: string, status: string): Promise<Answer['body']> {
    return await this.#lives.until(`${name} is ${status}`, async () => {
      const found = await this.#find(name)
      assert.ok(!String(found?.status).startsWith('error'), JSON.stringify(found))
      return found?.status === status ? found : null
    })
  }

  async #server(name: string): Promise<string> {
    const lives = this.#lives
    const named = async () =>
      (await lives.get(`${SERVERS}/detail?name=${name}`, 'servers')) as Answer['body'][] | null
    const body = {
      server: {
        name,
        imageRef: imageId('holdfast-tiny'),
        flavorRef: 't2.micro',
        availability_zone: 'az1',
      },
    }
    await lives.change('POST', SERVERS, body, async () => {
      const found = await named()
      return found === null ? null : found.length > 0 ? true : null
    })
    return await lives.until(`${name} runs`, async () => {
      const server = (await named())?.[0]
      assert.notEqual(server?.status, 'ERROR', JSON.stringify(server))
      const task = server?.['OS-EXT-STS:task_state']
      return server?.status === 'ACTIVE' && task === null ? (server.id as string) : null
    })
  }
}
