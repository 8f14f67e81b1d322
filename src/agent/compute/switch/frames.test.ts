import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { buildArp, parseArp } from './arp.ts'
import { addresses, buildDhcp, OPTION, parseDhcp, parseOptions } from './dhcp.ts'
import { buildEthernet, formatMac, isGroupMac, parseEthernet, parseMac } from './ethernet.ts'
import { echoReply, mayComplainAbout, timeExceeded, unreachable } from './icmp.ts'
import {
  buildIpv4,
  checksum,
  formatAddress,
  maskOf,
  nextHop,
  parseAddress,
  parseIpv4,
} from './ipv4.ts'
import { hostNameOf } from './table.ts'
import { buildUdp, parseUdp, udpChecksum } from './udp.ts'

const bytes = (maxLength = 1600) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array))
const macs = fc.integer({ min: 0, max: 2 ** 48 - 1 })
const hosts = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const ports = fc.integer({ min: 0, max: 65_535 })

test('no bytes make a parser throw', () => {
  fc.assert(
    fc.property(bytes(), (input) => {
      parseEthernet(input)
      parseArp(input)
      parseUdp(input)
      parseDhcp(input)
      parseOptions(input)
      echoReply(input)
      const ip = parseIpv4(input)
      if (ip === undefined) return
      mayComplainAbout(ip)
      timeExceeded(ip)
      unreachable(ip, 'host')
    }),
  )
})

test('frames, ARP messages and packets come out as they went in', () => {
  fc.assert(
    fc.property(macs, macs, ports, bytes(), (destination, source, type, payload) => {
      const parsed = parseEthernet(buildEthernet({ destination, source, type, payload }))
      assert.deepEqual(parsed, { destination, source, type, payload })
    }),
  )
  fc.assert(
    fc.property(ports, macs, hosts, macs, hosts, (...fields) => {
      const [operation, senderMac, senderAddress, targetMac, targetAddress] = fields
      const arp = { operation, senderMac, senderAddress, targetMac, targetAddress }
      assert.deepEqual(parseArp(buildArp(arp)), arp)
    }),
  )
  fc.assert(
    fc.property(hosts, hosts, bytes(), (source, destination, payload) => {
      const ip = parseIpv4(buildIpv4({ source, destination, protocol: 17, ttl: 9, payload }))
      assert.ok(ip?.checksumRight)
      assert.deepEqual([ip.source, ip.destination, ip.ttl], [source, destination, 9])
      assert.deepEqual(ip.payload, payload)
    }),
  )
})

test('checksums are right, also one hop later', () => {
  fc.assert(
    fc.property(hosts, hosts, ports, ports, bytes(), (...fields) => {
      const [source, destination, sourcePort, destinationPort, payload] = fields
      const udp = buildUdp({ source, destination, sourcePort, destinationPort, payload })
      assert.equal(udpChecksum(udp, source, destination), 0)
      assert.notEqual(udp.readUInt16BE(6), 0)
      assert.deepEqual(parseUdp(udp), { sourcePort, destinationPort, payload })

      const packet = buildIpv4({ source, destination, protocol: 17, ttl: 64, payload: udp })
      const next = parseIpv4(nextHop(parseIpv4(packet) ?? assert.fail()))
      assert.ok(next?.checksumRight)
      assert.equal(next.ttl, 63)
      for (const message of [timeExceeded(next), unreachable(next, 'network')]) {
        assert.equal(checksum(message), 0)
      }
    }),
  )
})

test('a checksum notices any single flipped bit', () => {
  fc.assert(
    fc.property(hosts, hosts, fc.nat({ max: 159 }), (source, destination, bit) => {
      const payload = Buffer.alloc(0)
      const packet = buildIpv4({ source, destination, protocol: 1, ttl: 64, payload })
      packet.writeUInt8(packet.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
      assert.notEqual(checksum(packet), 0)
    }),
  )
})

test('an echo is answered with its own content, and only when it is whole', () => {
  fc.assert(
    fc.property(bytes(64), (content) => {
      const request = Buffer.concat([Buffer.from([8, 0, 0, 0]), Buffer.alloc(4, 7), content])
      request.writeUInt16BE(checksum(request), 2)
      const reply = echoReply(request)
      assert.ok(reply)
      assert.equal(reply[0], 0)
      assert.equal(checksum(reply), 0)
      assert.deepEqual(reply.subarray(4), request.subarray(4))
      request.writeUInt8(request.readUInt8(5) ^ 1, 5)
      assert.equal(echoReply(request), undefined)
    }),
  )
})

test('a DHCP answer carries its options, and is no request', () => {
  const message = buildDhcp({
    type: 5,
    transaction: 0xfeed_0001,
    broadcast: true,
    clientAddress: 0,
    clientMac: 0xfa16_3e00_0001,
    yourAddress: 0x0a00_0005,
    server: 0x0a00_0001,
    options: [[OPTION.dns, addresses([1, 2])]],
  })
  assert.ok(message.length >= 300)
  assert.equal(parseDhcp(message), undefined)
  const options = parseOptions(message.subarray(240))
  assert.deepEqual([...options.keys()], [OPTION.type, OPTION.server, OPTION.dns])
  assert.deepEqual(options.get(OPTION.dns), addresses([1, 2]))
})

test('addresses are read and written', () => {
  fc.assert(fc.property(hosts, (host) => assert.equal(parseAddress(formatAddress(host)), host)))
  fc.assert(fc.property(macs, (mac) => assert.equal(parseMac(formatMac(mac)), mac)))
  for (const wrong of ['', '10.0.0', '10.0.0.256', '10.0.0.1.1', 'a.b.c.d', '10.0.0.-1']) {
    assert.equal(parseAddress(wrong), undefined)
  }
  assert.equal(parseMac('fa:16:3e:00:00'), undefined)
  assert.ok(isGroupMac(0xffff_ffff_ffff) && isGroupMac(0x0100_5e00_0001))
  assert.ok(!isGroupMac(0xfa16_3e00_0001))
  assert.deepEqual([maskOf(0), maskOf(24), maskOf(32)], [0, 0xffff_ff00, 0xffff_ffff])
})

test('any server name gives a host name of one label, or none', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 100 }), (name) => {
      assert.match(hostNameOf(name), /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$/)
    }),
  )
  assert.equal(hostNameOf('Web Server_01.prod'), 'web-server-01-prod')
  assert.equal(hostNameOf('-'), '')
})
