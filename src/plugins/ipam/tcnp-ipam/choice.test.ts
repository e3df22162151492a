// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CniError, type JsonObject } from '#cni'
import { choose, isSpecial } from './choice.ts'
import { podLayer } from './choice-layers.ts'
import { parseConfig } from './config.ts'

const EVERYTHING = ['network', 'subnet', 'address', 'mac', 'port', 'securityGroup', 'portSecurity']
const POD = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0'

type Asked = { neutronConf?: JsonObject; args?: string; more?: JsonObject; annotation?: JsonObject }

function chosen({ neutronConf = {}, args = '', more = {}, annotation }: Asked) {
  const config = parseConfig({ ipam: { neutronConf: { networks: ['tenant'], ...neutronConf } } })
  const call = { args, config: more, containerId: 'c1', ifName: 'eth0' }
  return choose(config, call, annotation === undefined ? [] : [podLayer('annotation', annotation)])
}

const refused = (asked: Asked): CniError => {
  try {
    chosen(asked)
  } catch (error) {
    assert.ok(error instanceof CniError, String(error))
    return error
  }
  throw new assert.AssertionError({ message: 'nothing was refused' })
}

test('choose gives the operator’s configuration to a pod that chooses nothing', () => {
  const choice = chosen({
    args: POD,
    neutronConf: { subnets: ['a', '10.2.0.0/24'], securityGroups: ['web'], portSecurity: true },
  })
  assert.deepEqual(choice, {
    networks: ['tenant'],
    subnets: ['a', '10.2.0.0/24'],
    addresses: [],
    mac: undefined,
    port: undefined,
    securityGroups: ['web'],
    portSecurity: true,
    chosen: {},
    portAnywhere: false,
  })
  assert.equal(isSpecial(choice), false)
})

test('choose takes the most specific source: configuration, annotation, CNI_ARGS, args.cni, runtimeConfig', () => {
  const sources: Asked = { neutronConf: { allow: EVERYTHING } }
  const addressOf = (asked: Asked) => chosen(asked).addresses
  const annotation = { ips: ['10.0.0.1'] }
  const args = 'IP=10.0.0.2/24'
  const cni = { args: { cni: { ips: ['10.0.0.3'] } } }
  const runtimeConfig = { runtimeConfig: { ips: ['10.0.0.4/24'] } }
  assert.deepEqual(addressOf({ ...sources, annotation }), ['10.0.0.1'])
  assert.deepEqual(addressOf({ ...sources, annotation, args }), ['10.0.0.2'])
  assert.deepEqual(addressOf({ ...sources, annotation, args, more: cni }), ['10.0.0.3'])
  assert.deepEqual(addressOf({ ...sources, annotation, args, more: { ...cni, ...runtimeConfig } }), ['10.0.0.4'])
  const macs = { args: { cni: { mac: 'fa:16:3e:00:00:03' } }, runtimeConfig: { mac: 'FA-16-3E-00-00-04' } }
  const mac = chosen({ ...sources, args: 'MAC=fa:16:3e:00:00:02', more: macs })
  assert.equal(mac.mac, 'fa:16:3e:00:00:04')
  assert.deepEqual(mac.chosen, { mac: 'runtimeConfig.mac' })
})

test('choose puts each thing together from the source that names it', () => {
  const choice = chosen({
    neutronConf: { networks: ['tenant', 'other'], securityGroups: ['web'], allow: EVERYTHING },
    args: `${POD};NEUTRON_NETWORK=other,tenant;NEUTRON_SECURITY_GROUPS=a,b;NEUTRON_PORT_SECURITY=TRUE`,
    more: { args: { cni: { labels: { x: 1 }, subnets: ['s1'] } }, runtimeConfig: { ips: ['fd00::0:1/64'], mac: '' } },
  })
  assert.deepEqual(choice.networks, ['other', 'tenant'])
  assert.deepEqual(choice.subnets, ['s1'])
  assert.deepEqual(choice.securityGroups, ['a', 'b'])
  assert.deepEqual(choice.addresses, ['fd00::1'])
  assert.deepEqual(choice.chosen, {
    networks: 'CNI_ARGS NEUTRON_NETWORK',
    securityGroups: 'CNI_ARGS NEUTRON_SECURITY_GROUPS',
    portSecurity: 'CNI_ARGS NEUTRON_PORT_SECURITY',
    subnets: 'args.cni.subnets',
    addresses: 'runtimeConfig.ips',
  })
})

test('choose denies everything by default and names who asked, for what, and what would allow it', () => {
  const asked: readonly [string, string, string][] = [
    ['IP=10.0.0.9', 'address 10.0.0.9: "CNI_ARGS IP"', 'address'],
    ['MAC=fa:16:3e:00:00:02', 'MAC fa:16:3e:00:00:02: "CNI_ARGS MAC"', 'mac'],
    ['NEUTRON_NETWORK=tenant', 'network tenant: "CNI_ARGS NEUTRON_NETWORK"', 'network'],
    ['NEUTRON_SUBNET=s1', 'subnet s1: "CNI_ARGS NEUTRON_SUBNET"', 'subnet'],
    ['NEUTRON_PORT=p1', 'port p1: "CNI_ARGS NEUTRON_PORT"', 'port'],
    ['NEUTRON_SECURITY_GROUPS=a,b', 'security group a, b: "CNI_ARGS NEUTRON_SECURITY_GROUPS"', 'securityGroup'],
    ['NEUTRON_PORT_SECURITY=false', 'port security false: "CNI_ARGS NEUTRON_PORT_SECURITY"', 'portSecurity'],
  ]
  for (const [pair, what, permission] of asked) {
    const error = refused({ args: `${POD};${pair}` })
    assert.equal(error.code, 106)
    assert.equal(
      error.message,
      `Cannot give interface eth0 of container c1 (pod shop/web-0) ${what} asks for it, and no pod of namespace shop may choose it`,
    )
    assert.equal(
      error.details,
      `"neutronConf": {"allowIn": {"shop": ["${permission}"]}} allows it to the pods of this namespace; ` +
        `"neutronConf": {"allow": ["${permission}"]} allows it to every pod`,
    )
    assert.doesNotThrow(() => chosen({ args: `${POD};${pair}`, neutronConf: { allow: [permission] } }))
    const others = EVERYTHING.filter(each => each !== permission)
    assert.equal(refused({ args: `${POD};${pair}`, neutronConf: { allow: others } }).code, 106)
  }
})

test('choose allows by namespace, and only to that one', () => {
  const neutronConf = { allowIn: { shop: ['address'] } }
  assert.deepEqual(chosen({ neutronConf, args: `${POD};IP=10.0.0.9` }).addresses, ['10.0.0.9'])
  for (const args of ['IgnoreUnknown=1;K8S_POD_NAMESPACE=bank;IP=10.0.0.9', 'IP=10.0.0.9'])
    assert.equal(refused({ neutronConf, args }).code, 106)
  const doubled = refused({ neutronConf, args: `K8S_POD_NAMESPACE=bank;IP=10.0.0.9;K8S_POD_NAMESPACE=shop` })
  assert.deepEqual([doubled.code, doubled.message], [4, 'CNI_ARGS: K8S_POD_NAMESPACE is given as "bank" and "shop"'])
})

test('choose wants every network that is not the operator’s allowed by name', () => {
  const foreign = { args: 'NEUTRON_NETWORK=bank' }
  assert.match(refused({ ...foreign, neutronConf: { allow: EVERYTHING } }).details!, /"allow": \["network:bank"\]/)
  assert.deepEqual(chosen({ ...foreign, neutronConf: { allow: ['network:bank'] } }).networks, ['bank'])
  const both = { args: 'NEUTRON_NETWORK=tenant,bank', neutronConf: { allow: ['network:bank'] } }
  assert.match(refused(both).details!, /"allow": \["network"\]/)
  const anything = { args: 'NEUTRON_NETWORK=x', neutronConf: { networks: [], allow: EVERYTHING } }
  assert.match(refused(anything).details!, /network:x/)
})

test('choose keeps a pod within the subnets that the operator names, or to one allowed by name', () => {
  const neutronConf = { subnets: ['a', 'b'], allow: ['subnet', 'subnet:z'] }
  assert.deepEqual(chosen({ neutronConf, args: 'NEUTRON_SUBNET=b' }).subnets, ['b'])
  assert.deepEqual(chosen({ neutronConf, args: 'NEUTRON_SUBNET=z' }).subnets, ['z'])
  assert.match(refused({ neutronConf, args: 'NEUTRON_SUBNET=c' }).details!, /subnet:c/)
})

test('choose tells a denied wish although a more specific one would stand', () => {
  const error = refused({
    neutronConf: { allow: ['address'] },
    args: 'NEUTRON_NETWORK=bank',
    more: { args: { cni: { networks: ['tenant'] } } },
  })
  assert.match(error.message, /CNI_ARGS NEUTRON_NETWORK/)
})

test('choose takes an existing port as it is, and from any network only where the port is named', () => {
  const neutronConf = { securityGroups: ['web'], portSecurity: true, allow: ['port', 'address', 'port:p2'] }
  const choice = chosen({ neutronConf, args: 'NEUTRON_PORT=p1' })
  assert.deepEqual([choice.port, choice.securityGroups, choice.portSecurity], ['p1', undefined, undefined])
  assert.equal(choice.portAnywhere, false)
  assert.equal(chosen({ neutronConf, args: 'NEUTRON_PORT=p2' }).portAnywhere, true)
  assert.equal(isSpecial(choice), true)
  const error = refused({ neutronConf, args: 'NEUTRON_PORT=p1;IP=10.0.0.1' })
  assert.equal(error.code, 7)
  assert.match(error.message, /"CNI_ARGS NEUTRON_PORT" names a port, and "CNI_ARGS IP" what it shall have/)
})

test('choose lets no security group stand where port security is off', () => {
  const neutronConf = { securityGroups: ['web'], allow: ['portSecurity', 'securityGroup'] }
  const off = chosen({ neutronConf, args: 'NEUTRON_PORT_SECURITY=false' })
  assert.deepEqual([off.portSecurity, off.securityGroups], [false, []])
  const error = refused({ neutronConf, args: 'NEUTRON_PORT_SECURITY=false;NEUTRON_SECURITY_GROUPS=a' })
  assert.match(error.message, /names security groups, and its port security is off/)
  const none = chosen({ neutronConf, more: { args: { cni: { securityGroups: [] } } } })
  assert.deepEqual(none.securityGroups, [])
})

test('choose takes one address per IP version', () => {
  const neutronConf = { allow: ['address'] }
  const both = chosen({ neutronConf, args: 'IP=10.0.0.1,fd00::1,10.0.0.1' })
  assert.deepEqual(both.addresses, ['10.0.0.1', 'fd00::1'])
  const error = refused({ neutronConf, more: { runtimeConfig: { ips: ['10.0.0.1', '10.0.0.2/24'] } } })
  assert.match(error.message, /"runtimeConfig.ips" names 10.0.0.1 and 10.0.0.2/)
})

test('choose says which wish it cannot read', () => {
  const allow = { neutronConf: { allow: EVERYTHING } }
  const cases: readonly [Asked, number, RegExp][] = [
    [{ args: 'IP=10.0.0.300' }, 4, /^CNI_ARGS: IP is "10.0.0.300", want an IP address$/],
    [{ args: 'MAC=01:00:5e:00:00:01' }, 4, /^CNI_ARGS: MAC is "01:00:5e:00:00:01", want a MAC that a NIC can have$/],
    [{ args: 'NEUTRON_SUBNET=a,' }, 4, /^CNI_ARGS: NEUTRON_SUBNET is "a,", want names separated by commas$/],
    [{ args: 'NEUTRON_PORT_SECURITY=no' }, 4, /want true or false$/],
    [{ args: 'NEUTRON_SUBNETS=a' }, 4, /unknown args \["NEUTRON_SUBNETS=a"\]/],
    [{ more: { runtimeConfig: { ips: ['here'] } } }, 7, /"runtimeConfig.ips\[0\]" is "here", want an IP address/],
    [{ more: { args: { cni: { port: 5 } } } }, 7, /^Cannot read args.cni: "port" is a number, want a string$/],
    [{ more: { args: { cni: { networks: Array(17).fill('n') } } } }, 7, /"networks" names 17, want 16 at most/],
  ]
  for (const [asked, code, message] of cases) {
    const error = refused({ ...allow, ...asked })
    assert.equal(error.code, code)
    assert.match(error.message, message)
  }
})

test('parseConfig knows no permission that stands for several, and no namespace of any name', () => {
  for (const word of ['*', 'all', 'network:', 'address:10.0.0.1', 'portSecurity:false'])
    assert.throws(() => chosen({ neutronConf: { allow: [word] } }), {
      code: 7,
      message: /"ipam.neutronConf.allow\[0\]" is/,
    })
  assert.throws(() => chosen({ neutronConf: { allowIn: { '*': ['address'] } } }), {
    code: 7,
    message: /"ipam.neutronConf.allowIn" has the key "\*"/,
  })
})
