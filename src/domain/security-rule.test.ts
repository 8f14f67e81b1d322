import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type SecurityRule, securityRuleFault } from './security-rule.ts'

const RULE: SecurityRule = {
  direction: 'ingress',
  ethertype: 'IPv4',
  protocol: 'tcp',
  portMin: 80,
  portMax: 443,
  remotePrefix: null,
  remoteGroup: null,
}

const faultOf = (over: Partial<SecurityRule>) => securityRuleFault({ ...RULE, ...over })

test('ports belong to protocols that have them, in order and in range', () => {
  for (const [protocol, portMin, portMax, fine] of [
    ['tcp', 1, 65_535, true],
    ['17', 53, 53, true],
    ['tcp', null, null, true],
    [null, null, null, true],
    ['tcp', 443, 80, false],
    ['tcp', 0, 80, false],
    ['udp', 1, 65_536, false],
    ['tcp', 80, null, false],
    ['tcp', null, 80, false],
    ['tcp', 1.5, 2, false],
    [null, 80, 80, false],
    ['gre', 80, 80, false],
    ['icmp', 8, 0, true],
    ['icmp', 8, null, true],
    ['icmp', 0, 0, true],
    ['icmp', null, 0, false],
    ['icmp', 256, null, false],
    ['58', 128, 0, true],
  ] as const) {
    const fault = faultOf({ protocol, portMin, portMax })
    assert.equal(fault, fine ? null : 'PORTS', `${protocol} ${portMin} ${portMax}`)
  }
})

test('a protocol is a known name or a number of one byte', () => {
  for (const protocol of ['icmpv6', 'vrrp', '0', '255']) {
    assert.equal(faultOf({ protocol, portMin: null, portMax: null }), null, protocol)
  }
  for (const protocol of ['TCP', 'smtp', '256', '-1', '06', '', '1.0']) {
    assert.equal(faultOf({ protocol, portMin: null, portMax: null }), 'PROTOCOL', protocol)
  }
})

test('the remote side is anybody, one network of the same family, or one group', () => {
  for (const [ethertype, remotePrefix, fine] of [
    ['IPv4', '0.0.0.0/0', true],
    ['IPv4', '10.1.2.3', true],
    ['IPv4', '10.1.2.3/24', true],
    ['IPv4', '10.1.2.3/33', false],
    ['IPv4', '10.1.2/24', false],
    ['IPv4', '::/0', false],
    ['IPv6', '::/0', true],
    ['IPv6', 'fd00::1', true],
    ['IPv6', '2001:DB8::/32', true],
    ['IPv6', '::ffff:10.0.0.1/128', true],
    ['IPv6', 'fd00::/129', false],
    ['IPv6', 'fd00:::1', false],
    ['IPv6', '1:2:3:4:5:6:7:8:9', false],
    ['IPv6', '[::1]', false],
    ['IPv6', '0.0.0.0/0', false],
    ['IPv6', '::1/64/64', false],
    ['IPv6', '', false],
  ] as const) {
    const fault = faultOf({ ethertype, remotePrefix })
    assert.equal(fault, fine ? null : 'REMOTE_PREFIX', `${ethertype} ${remotePrefix}`)
  }
  assert.equal(faultOf({ remotePrefix: '0.0.0.0/0', remoteGroup: 'g' }), 'TWO_REMOTES')
  assert.equal(faultOf({ remoteGroup: 'g' }), null)
  assert.equal(faultOf({ direction: 'both' }), 'DIRECTION')
  assert.equal(faultOf({ ethertype: 'ipv4' }), 'ETHERTYPE')
})
