import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ARP_REPLY, parseArp } from './arp.ts'
import { ACK, addresses, DISCOVER, INFORM, NAK, OFFER, OPTION, REQUEST } from './dhcp.ts'
import {
  buildEthernet,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  MAC_BROADCAST,
  parseEthernet,
} from './ethernet.ts'
import { forward } from './forward.ts'
import type { Verdict } from './verdict.ts'
import { checksum, parseIpv4, PROTOCOL_ICMP } from './ipv4.ts'
import {
  address,
  arpFrame,
  dhcpAnswer,
  dhcpFrame,
  ipFrame,
  mac,
  pingFrame,
  requestFrame,
  testNic,
  udpFrame,
} from './nic.test-kit.ts'
import { type Nic, Table } from './table.ts'

/* Two domains with the same arrangement: networks 0 and 1, and in the first one two hosts and in the second one. */
const a = testNic(1, 0, 10)
const neighbour = testNic(1, 0, 11)
const routed = testNic(1, 1, 10)
const stranger = testNic(2, 0, 10)
const everybody = [a, neighbour, routed, stranger, testNic(2, 0, 11), testNic(2, 1, 10)]
const table = new Table(everybody)

const judge = (frame: Buffer, from: Nic = a): Verdict => forward(table, from, frame)
const dropped = (frame: Buffer, from: Nic = a): string | undefined => {
  const verdict = judge(frame, from)
  return verdict.kind === 'dropped' ? verdict.reason : undefined
}
const answered = (frame: Buffer, from: Nic = a): Buffer => {
  const verdict = judge(frame, from)
  assert.ok(verdict.kind === 'answered', JSON.stringify(verdict))
  assert.deepEqual(verdict.to, [from])
  return verdict.frame
}
const direct = (to: Nic) => ({ from: a, toMac: to.mac, to: to.address })
const viaGateway = (to: number) => ({ from: a, toMac: a.gatewayMac, to })

test('a frame to a neighbour reaches it unchanged, and nobody else', () => {
  const frame = udpFrame(direct(neighbour), [1, 2], 'hello')
  assert.deepEqual(judge(frame), { kind: 'bridged', to: [neighbour], frame })
})

test('broadcasts and multicasts reach all others in the network, and nobody else', () => {
  const broadcast = udpFrame({ ...direct(neighbour), toMac: MAC_BROADCAST }, [1, 2], 'all')
  const multicast = udpFrame(
    { from: a, toMac: mac('01:00:5e:00:00:fb'), to: address('224.0.0.251') },
    [5353, 5353],
    'mdns',
  )
  for (const frame of [broadcast, multicast, arpFrame(a, neighbour.address)]) {
    assert.deepEqual(judge(frame), { kind: 'flooded', to: [neighbour], frame })
  }
})

test('a frame to a MAC outside the network reaches nobody', () => {
  for (const other of [routed, stranger]) {
    assert.equal(dropped(udpFrame(direct(other), [1, 2], 'x')), 'nobody')
  }
  assert.equal(dropped(udpFrame(direct(a), [1, 2], 'myself')), 'nobody')
})

test('a frame of another source MAC or address is dropped', () => {
  const asNeighbour = { mac: neighbour.mac, address: a.address }
  assert.equal(
    dropped(udpFrame({ ...direct(neighbour), from: asNeighbour }, [1, 2], 'x')),
    'source_mac',
  )
  for (const claimed of [neighbour.address, a.gateway ?? 0, 0]) {
    const from = { mac: a.mac, address: claimed }
    assert.equal(dropped(udpFrame({ ...direct(neighbour), from }, [1, 2], 'x')), 'source_address')
    assert.equal(
      dropped(udpFrame({ ...viaGateway(routed.address), from }, [1, 2], 'x')),
      'source_address',
    )
    if (claimed !== 0) assert.equal(dropped(arpFrame(from, neighbour.address)), 'source_address')
  }
  const arp = arpFrame({ mac: neighbour.mac, address: a.address }, neighbour.address)
  arp.writeUIntBE(a.mac, 6, 6)
  assert.equal(dropped(arp), 'source_address')
})

test('the gateway answers ARP for itself, also to a client that has no address yet', () => {
  for (const from of [a, { mac: a.mac, address: 0 }]) {
    const reply = parseEthernet(answered(arpFrame(from, a.gateway ?? 0)))
    assert.equal(reply?.type, ETHERTYPE_ARP)
    assert.equal(reply.source, a.gatewayMac)
    assert.deepEqual(parseArp(reply.payload), {
      operation: ARP_REPLY,
      senderMac: a.gatewayMac,
      senderAddress: a.gateway,
      targetMac: a.mac,
      targetAddress: from.address,
    })
  }
  assert.equal(dropped(arpFrame(a, a.gateway ?? 0, ARP_REPLY)), 'gateway')
})

test('networks of a domain reach each other through their gateways', () => {
  const frame = udpFrame(viaGateway(routed.address), [1, 2], 'far')
  const verdict = judge(frame)
  assert.ok(verdict.kind === 'routed')
  assert.deepEqual(verdict.to, [routed])
  const arrived = parseEthernet(verdict.frame)
  assert.equal(arrived?.destination, routed.mac)
  assert.equal(arrived.source, routed.gatewayMac)
  const ip = parseIpv4(arrived.payload)
  assert.ok(ip?.checksumRight)
  assert.deepEqual([ip.source, ip.destination, ip.ttl], [a.address, routed.address, 63])
  assert.deepEqual(ip.payload, parseIpv4(parseEthernet(frame)?.payload ?? frame)?.payload)
})

test('no gateway leads out of its domain', () => {
  const refusal = parseIpv4(
    parseEthernet(answered(pingFrame(viaGateway(stranger.address), 'x')))?.payload ?? assert.fail(),
  )
  assert.deepEqual([...(refusal?.payload.subarray(0, 2) ?? [])], [3, 0])
  const elsewhere = { ...viaGateway(stranger.address), toMac: stranger.gatewayMac }
  assert.equal(dropped(pingFrame(elsewhere, 'x')), 'nobody')
})

test('a gateway answers echo requests to any gateway of the domain, and nothing else', () => {
  for (const gateway of [a.gateway ?? 0, routed.gateway ?? 0]) {
    const ip = parseIpv4(
      parseEthernet(answered(pingFrame(viaGateway(gateway), 'ping')))?.payload ?? assert.fail(),
    )
    assert.ok(ip?.checksumRight)
    assert.deepEqual([ip.source, ip.destination], [gateway, a.address])
    assert.equal(checksum(ip.payload), 0)
    assert.equal(ip.payload.toString('latin1', 8), 'ping')
    assert.equal(dropped(udpFrame(viaGateway(gateway), [1, 53], 'x')), 'gateway')
  }
})

test('a packet that has come too far, or to nobody, is answered with the reason', () => {
  const about = (frame: Buffer) => {
    const ip = parseIpv4(parseEthernet(answered(frame))?.payload ?? assert.fail())
    assert.equal(ip?.protocol, PROTOCOL_ICMP)
    assert.equal(checksum(ip.payload), 0)
    return [...ip.payload.subarray(0, 2)]
  }
  assert.deepEqual(about(pingFrame(viaGateway(routed.address), 'x', 1)), [11, 0])
  assert.deepEqual(about(pingFrame(viaGateway(address('10.1.1.99')), 'x')), [3, 1])
  assert.deepEqual(about(pingFrame(viaGateway(address('192.0.2.1')), 'x')), [3, 0])
  // Errors are never answered with errors.
  const error = Buffer.alloc(36)
  error[0] = 3
  assert.equal(dropped(ipFrame(viaGateway(address('192.0.2.1')), PROTOCOL_ICMP, error)), 'nobody')
})

test('damaged packets and packets with options are not routed', () => {
  const damaged = pingFrame(viaGateway(routed.address), 'x')
  damaged.writeUInt8(63, 14 + 8)
  assert.equal(dropped(damaged), 'malformed')
  const packet = Buffer.alloc(28)
  packet.set([0x46, 0, 0, 28, 0, 0, 0, 0, 64, 17])
  packet.writeUInt32BE(a.address, 12)
  packet.writeUInt32BE(routed.address, 16)
  packet.writeUInt16BE(checksum(packet.subarray(0, 24)), 10)
  packet.set([0, 1, 0, 2], 24)
  const frame = buildEthernet({
    destination: a.gatewayMac,
    source: a.mac,
    type: ETHERTYPE_IPV4,
    payload: Buffer.concat([packet, Buffer.alloc(4)]),
  })
  assert.equal(dropped(frame), 'malformed')
})

test('IPv6, VLAN tags, bridge protocols and sizes that cannot be are dropped', () => {
  const of = (type: number, length = 60) =>
    buildEthernet({
      destination: MAC_BROADCAST,
      source: a.mac,
      type,
      payload: Buffer.alloc(length),
    })
  assert.equal(dropped(of(ETHERTYPE_IPV6)), 'kind')
  assert.equal(dropped(of(0x8100)), 'kind')
  assert.equal(dropped(of(0x0026)), 'kind')
  assert.equal(dropped(of(ETHERTYPE_IPV4, 1501)), 'size')
  assert.equal(dropped(Buffer.alloc(13)), 'size')
  assert.equal(dropped(of(ETHERTYPE_IPV4, 10)), 'malformed')
  assert.equal(dropped(of(ETHERTYPE_ARP, 10)), 'malformed')
})

test('a guest cannot play DHCP server, whatever ports or fragments it uses', () => {
  const everywhere = { from: a, toMac: MAC_BROADCAST, to: address('255.255.255.255') }
  assert.equal(dropped(udpFrame(everywhere, [67, 68], 'offer')), 'dhcp_server')
  assert.equal(dropped(udpFrame(everywhere, [1067, 68], 'offer')), 'dhcp_server')
  assert.equal(dropped(udpFrame(direct(neighbour), [67, 9], 'offer')), 'dhcp_server')
  const fragment = udpFrame(everywhere, [67, 68], 'the first of several fragments')
  fragment.writeUInt16BE(0x2000, 14 + 6)
  assert.equal(dropped(fragment), 'malformed')
  const tiny = ipFrame(everywhere, 17, Buffer.from([0, 67, 0, 68]))
  assert.equal(dropped(tiny), 'malformed')
})

test('DHCP gives each NIC the address of its definition and nothing else', () => {
  const offer = dhcpAnswer(answered(dhcpFrame(a, DISCOVER)))
  const ack = dhcpAnswer(answered(requestFrame(a, a.address)))
  assert.equal(offer?.type, OFFER)
  assert.equal(ack?.type, ACK)
  for (const answer of [offer, ack]) {
    assert.equal(answer.yourAddress, a.address)
    assert.deepEqual(answer.options.get(OPTION.mask), addresses([address('255.255.255.0')]))
    assert.deepEqual(answer.options.get(OPTION.router), addresses([a.gateway ?? 0]))
    assert.deepEqual(answer.options.get(OPTION.server), addresses([a.gateway ?? 0]))
    assert.deepEqual(answer.options.get(OPTION.dns), addresses(a.dns))
    assert.equal(answer.options.get(OPTION.hostName)?.toString(), 'server-1-0-10')
    assert.equal(answer.options.get(OPTION.leaseSeconds)?.readUInt32BE(0), 86_400)
  }
  const refused = dhcpAnswer(answered(requestFrame(a, neighbour.address)))
  assert.equal(refused?.type, NAK)
  assert.equal(refused.yourAddress, 0)
  const inform = dhcpAnswer(answered(dhcpFrame(a, INFORM)))
  assert.equal(inform?.type, ACK)
  assert.equal(inform.options.has(OPTION.leaseSeconds), false)
})

test('DHCP messages to another server, or of another client, have no answer', () => {
  const other: [number, Buffer][] = [
    [OPTION.server, addresses([address('10.9.9.9')])],
    [OPTION.requested, addresses([a.address])],
  ]
  assert.equal(dropped(dhcpFrame(a, REQUEST, other)), 'dhcp_ignored')
  assert.equal(dropped(dhcpFrame(a, 7)), 'dhcp_ignored')
  const forged = dhcpFrame(neighbour, DISCOVER)
  forged.writeUIntBE(a.mac, 6, 6)
  assert.equal(dropped(forged), 'dhcp_ignored')
})

test('without a gateway there is DHCP without a router, and no way out', () => {
  const alone = { ...testNic(3, 0, 10), gateway: null }
  const lonely = new Table([alone])
  const verdict = forward(lonely, alone, dhcpFrame(alone, DISCOVER))
  assert.ok(verdict.kind === 'answered')
  const offer = dhcpAnswer(verdict.frame)
  assert.equal(offer?.yourAddress, alone.address)
  assert.equal(offer.options.has(OPTION.router), false)
  const frame = pingFrame({ from: alone, toMac: alone.gatewayMac, to: address('10.3.0.1') }, 'x')
  assert.deepEqual(forward(lonely, alone, frame), { kind: 'dropped', reason: 'nobody' })
})

test('no frame of any NIC throws, leaves its domain, or reaches another network but through the router', () => {
  const macs = fc.constantFrom(
    ...everybody.flatMap((nic) => [nic.mac, nic.gatewayMac]),
    MAC_BROADCAST,
    mac('01:00:5e:00:00:01'),
  )
  const hosts = fc.constantFrom(
    ...everybody.flatMap((nic) => [nic.address, nic.gateway ?? 0]),
    0,
    address('255.255.255.255'),
    address('224.0.0.1'),
  )
  const ports = fc.constantFrom(67, 68, 80)
  const content = fc.uint8Array({ maxLength: 80 }).map((array) => Buffer.from(array))
  const senders = fc.constantFrom(...everybody)
  const plausible = fc.tuple(senders, macs, hosts, macs, hosts, ports, ports, content)
  const frames = plausible.chain((fields) => {
    const [nic, otherMac, otherHost, toMac, to, source, destination, payload] = fields
    const from = {
      mac: payload.length % 5 === 0 ? otherMac : nic.mac,
      address: payload.length % 7 === 0 ? otherHost : nic.address,
    }
    const own = from.mac
    const ends = { from, toMac, to }
    const frame = fc.constantFrom(
      udpFrame(ends, [source, destination], payload.toString('latin1')),
      pingFrame(ends, 'ping', payload.length % 4),
      arpFrame(from, to),
      arpFrame(from, to, ARP_REPLY),
      dhcpFrame(from, payload.length % 9),
      requestFrame(from, to),
      buildEthernet({ destination: toMac, source: own, type: ETHERTYPE_IPV4, payload }),
      payload,
    )
    return fc.tuple(fc.constant(nic), frame, fc.nat(), fc.nat({ max: 255 }), fc.boolean())
  })
  let delivered = 0
  fc.assert(
    fc.property(frames, ([nic, frame, at, value, bent]) => {
      if (bent && frame.length > 0) frame.writeUInt8(value, at % frame.length)
      const verdict = forward(table, nic, frame)
      if (verdict.kind === 'dropped' || verdict.kind === 'to_gateway') return
      delivered++
      for (const to of verdict.to) {
        assert.equal(to.domain, nic.domain)
        if (verdict.kind !== 'routed') assert.equal(to.network, nic.network)
        if (verdict.kind === 'answered') assert.equal(to, nic)
      }
      const sent = parseEthernet(verdict.frame)
      const honestly = verdict.kind === 'bridged' || verdict.kind === 'flooded'
      if (honestly) assert.equal(sent?.source, nic.mac)
    }),
    { numRuns: 5_000 },
  )
  assert.ok(delivered > 500, `only ${delivered} frames were not dropped`)
})
