import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ServerDefinition, ServerNic } from '#wire/site/servers.ts'
import { devicesOf, diskXml, domainXml, freePlace, nicXml } from './domain-xml.ts'

const NIC: ServerNic = {
  port: 'port-1',
  mac: 'fa:16:3e:00:00:01',
  address: '10.9.0.9',
  prefix_length: 24,
  gateway: null,
  dns: [],
  network: 'network',
  domain: 'domain',
}
const disk = (volume: string, boot_index: number | null = null) => ({
  volume,
  device: '/dev/vda',
  boot_index,
})
const DEFINITION: ServerDefinition = {
  server: '6f2f1d5e-93d5-4a0e-8b6f-1d2c3b4a5968',
  generation: 1,
  name: `O'Hara & <sons>\n`,
  vcpus: 2,
  memory_mb: 128,
  disks: [disk('system', 0), disk('data')],
  nics: [NIC],
}
const PLACES = {
  domain: 'az1-guest-x',
  nbdSocket: '/data/nbd.sock',
  consoleFile: '/data/console.log',
  type: 'qemu' as const,
  network: undefined,
}

test('a definition is found again in the description of its domain', () => {
  const xml = domainXml(DEFINITION, PLACES)
  assert.deepEqual(devicesOf(xml), {
    disks: ['system', 'data'],
    nics: [{ port: 'port-1', mac: NIC.mac }],
    targets: ['vda', 'vdb'],
  })
  assert.match(xml, /<uuid>6f2f1d5e-93d5-4a0e-8b6f-1d2c3b4a5968<\/uuid>/)
  assert.match(xml, /<title>O&apos;Hara &amp; &lt;sons&gt; <\/title>/)
  assert.equal(xml.split("<boot order='1'/>").length, 2, 'one disk is booted from')
})

test('a domain that somebody else gave devices to is described without them', () => {
  const theirs =
    "<disk type='file'><target dev='vdc' bus='virtio'/><alias name='virtio-disk2'/></disk>"
  const nic =
    "<interface type='user'><mac address='52:54:00:00:00:01'/><alias name='net0'/></interface>"
  const xml = domainXml(DEFINITION, PLACES).replace('</devices>', `${theirs}${nic}</devices>`)
  const { disks, nics, targets } = devicesOf(xml)
  assert.deepEqual([disks.length, nics.length, targets], [2, 1, ['vda', 'vdb', 'vdc']])
})

test('a plugged disk gets the first letter that is free, beyond z two of them', () => {
  assert.equal(freePlace([]), 0)
  assert.equal(freePlace(['vda', 'vdc']), 1)
  const all = Array.from({ length: 26 }, (_, index) => `vd${String.fromCharCode(97 + index)}`)
  assert.match(diskXml(disk('late'), null, freePlace(all), '/s'), /<target dev='vdaa'/)
})

test('a server that has no UUID is always the same domain', () => {
  const uuid = (server: string) =>
    /<uuid>(.*)<\/uuid>/.exec(domainXml({ ...DEFINITION, server }, PLACES))?.[1]
  assert.match(
    uuid('one') ?? '',
    /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/,
  )
  assert.equal(uuid('one'), uuid('one'))
  assert.notEqual(uuid('one'), uuid('two'))
})

test('a NIC is plugged into the network that is configured, or into none', () => {
  assert.match(nicXml(NIC, 'lan'), /<interface type='network'>.*<source network='lan'\/>/)
  assert.match(nicXml(NIC, undefined), /<interface type='ethernet'>/)
})
