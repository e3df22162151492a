// SPDX-License-Identifier: Apache-2.0

// Promise: CHECK finds each rule of ours that somebody replaced by another, and is content again when it is back, whoever wrote
// it: nft may have saved and restored it. Needs root and nft.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Attachment, errorOf, makeNetns, type Netns, resultOf, skip } from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

type Plugins = readonly (readonly [type: string, keys: object])[]
const chains: { readonly [name: string]: Plugins } = {
  'veth-route and portmap': [
    ['veth-route', { ipMasq: true }],
    ['portmap', { snat: true, conditionsV4: ['-s', '192.0.2.0/24'] }],
  ],
  bridge: [['bridge', { isGateway: true, ipMasq: true, macspoofchk: true }]],
  'veth-host': [
    ['macvlan', {}],
    ['veth-host', { serviceCidr: '10.96.0.0/12', isDefaultGateway: true }],
  ],
}

/** Rules of our tables: where each stands, and what it says. */
function rulesIn(netns: Netns): { place: string; handle: string; text: string }[] {
  const found: { place: string; handle: string; text: string }[] = []
  let [table, chain] = ['', '']
  for (const line of netns.run('nft', '-a', 'list', 'ruleset').split('\n')) {
    table = /^table (\w+ [\w-]+) \{/.exec(line)?.[1] ?? table
    chain = /^\tchain (\S+) \{/.exec(line)?.[1] ?? (/^\t\}/.test(line) ? '' : chain)
    const [, text, handle] = /^\t\t(.+) # handle (\d+)$/.exec(line) ?? []
    if (chain !== '' && text !== undefined) found.push({ place: `${table} ${chain}`, handle: handle!, text })
  }
  return found
}

describe('rules that somebody replaced', { skip }, () => {
  const at = suiteNode({ mode: 'agent', bringForGood: async () => undefined })
  const ipam = () => ({ type: 'host-local', dataDir: at.node.leases, ranges: [[{ subnet: '10.1.0.0/16' }]] })
  const runtimeConfig = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] }
  const configOf = ([type, keys]: Plugins[number]) => ({
    ...{ cniVersion: '1.0.0', name: 'net', type, ipam: ipam(), runtimeConfig, ...keys },
  })

  for (const [name, plugins] of Object.entries(chains))
    test(`${name}: CHECK names the chain of each`, async () => {
      const pod = makeNetns('pod')
      const it: Attachment = { containerId: name.replaceAll(' ', '-'), netns: pod.path }
      const call = async (verb: 'ADD' | 'CHECK' | 'DEL', plugin: Plugins[number], prevResult?: object) =>
        await at.node.call(verb, {
          ...it,
          type: plugin[0],
          config: { ...configOf(plugin), ...(prevResult === undefined ? {} : { prevResult }) },
        })
      let result: object | undefined
      for (const plugin of plugins) result = resultOf(await call('ADD', plugin, result))
      const check = () => Promise.all(plugins.map(plugin => call('CHECK', plugin, result)))
      for (const outcome of await check()) resultOf(outcome)
      let count = 0
      for (const netns of [at.node, pod])
        for (const { place, handle, text } of rulesIn(netns)) {
          count++
          const replace = (rule: string) => netns.run('nft', `replace rule ${place} handle ${handle} ${rule}`)
          replace('meta mark 7 accept')
          const faults = (await check()).filter(({ code }) => code !== 0).map(errorOf)
          assert.ok(faults.length > 0, `${place}: ${text}`)
          for (const { msg, details } of faults)
            assert.ok(`${msg} ${details}`.includes(`chain ${place}`), `${place}: ${msg}`)
          replace(text)
          for (const outcome of await check()) assert.equal(outcome.code, 0, `${place}: ${text}: ${outcome.stdout}`)
        }
      assert.ok(count >= 5, `${count} rules`)
      for (const plugin of plugins.toReversed()) resultOf(await call('DEL', plugin))
      at.node.run('nft', 'flush', 'ruleset')
    })
})
