// SPDX-License-Identifier: Apache-2.0

// Goal: what is wrong with cloud, credentials, network or port is one clear CNI error with the right code and a remedy,
// nothing is left in kernel, journal and Neutron, and the password is nowhere. Needs root.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Simulator } from '#simulator'
import { type CloudNode, makeCloudNode } from './crash/cloud.ts'
import { assertSameState, errorOf, makeNetns, type RunningAgent, resultOf, skip, stateOfKernel } from './nodelab.ts'
import { testTwiceInWhole } from './suite-node.ts'

type Bad = { what: string; code: number; msg: RegExp; ipam?: object; neutronConf?: object; more?: object }

for (const mode of ['standalone', 'agent'] as const)
  describe(`bad cloud, ${mode}`, { skip }, () => {
    let cloud: CloudNode
    let agent: RunningAgent | undefined
    let kernel: string[]
    let addresses: string[]
    let netns: string
    before(async () => {
      cloud = await makeCloudNode(mode)
      if (mode === 'agent') agent = await cloud.node.startAgent({ args: ['--log-level', 'debug'] })
      netns = makeNetns('pod').path
      addresses = cloud.fixedIps()
      resultOf(await cloud.node.call('ADD', { containerId: 'first', netns }, cloud.options()))
      resultOf(await cloud.node.call('DEL', { containerId: 'first', netns }, cloud.options()))
      while (cloud.fixedIps().length > addresses.length) await new Promise(resolve => setTimeout(resolve, 20))
      kernel = stateOfKernel(cloud.node)
    })
    after(async () => {
      await agent?.[Symbol.asyncDispose]()
      await cloud[Symbol.asyncDispose]()
    })

    testTwiceInWhole(mode)(
      'ADD: one error with the right code for each, nothing left behind, and no password anywhere',
      async () => {
        const { node, simulator, options } = cloud
        const conf = options().more.ipam['openstackConf'] as Record<string, string>
        const { password } = simulator.accounts.demo
        const id = '00000000-0000-4000-8000-000000000000'
        const bad: Bad[] = [
          {
            what: 'an unknown mode',
            code: 7,
            msg: /mode.* is "magic", want "mix" or /,
            neutronConf: { mode: 'magic' },
          },
          { what: 'a reserve that is a text', code: 7, msg: /reserve/, neutronConf: { reserve: '4' } },
          { what: 'a network that is not there', code: 7, msg: /./, neutronConf: { networks: [id] } },
          { what: 'a host interface that is not there', code: 7, msg: /"none"/, more: { hostInterface: 'none' } },
          {
            what: 'its own host interface that is not there',
            code: 7,
            msg: /"none"/,
            neutronConf: { hostInterface: 'none' },
          },
          { what: 'a port that is not there', code: 7, msg: /./, neutronConf: { hostPort: id } },
          {
            what: 'a wrong password',
            code: 101,
            msg: /./,
            ipam: { openstackConf: { ...conf, password: `${password}x` } },
          },
          {
            what: 'a user that is not there',
            code: 101,
            msg: /./,
            ipam: { openstackConf: { ...conf, username: 'nobody' } },
          },
          {
            what: 'a URL where nobody listens',
            code: 11,
            msg: /./,
            ipam: { openstackConf: { ...conf, authUrl: 'http://127.0.0.1:1/v3' } },
          },
          { what: 'a URL that is none', code: 7, msg: /./, ipam: { openstackConf: { ...conf, authUrl: 'here' } } },
          { what: 'no password', code: 7, msg: /password/, ipam: { openstackConf: { ...conf, password: undefined } } },
          {
            what: 'a cloud that no file knows',
            code: 7,
            msg: /./,
            ipam: { openstackConf: undefined, cloud: 'nowhere' },
          },
          { what: 'a cloud and credentials', code: 7, msg: /both given/, ipam: { cloud: 'nowhere' } },
        ]
        const surprises: object[] = []
        for (const { what, code, msg, ipam, neutronConf, more } of bad) {
          const it = { containerId: 'bad', netns }
          const { ipam: merged } = options(ipam, neutronConf).more
          const outcome = await node.call('ADD', it, { more: { ...more, ipam: merged } })
          const error = errorOf(outcome)
          if (error.code !== code || !msg.test(error.msg))
            surprises.push({ what, wanted: code, stdout: outcome.stdout })
          assert.ok(!`${outcome.stdout}${outcome.stderr}`.includes(password), what)
          assertSameState(stateOfKernel(node), kernel, `after ${what}`)
          assert.deepEqual(cloud.fixedIps(), addresses, `after ${what}`)
          const deleted = await node.call('DEL', it, { more: { ...more, ipam: merged } })
          if (deleted.code !== 0) surprises.push({ what: `DEL with ${what}`, stdout: deleted.stdout })
        }
        assert.deepEqual(surprises, [])
      },
    )

    test('the password is in no file, log or command line', async () => {
      const { node, simulator } = cloud
      const it = { containerId: 'secret', netns }
      resultOf(await node.call('ADD', it, cloud.options()))
      const { password } = simulator.accounts.demo
      for (const name of readdirSync(node.dataDir, { recursive: true, withFileTypes: true })) {
        if (!name.isFile()) continue
        const path = join(name.parentPath, name.name)
        assert.ok(!readFileSync(path, 'latin1').includes(password), path)
      }
      assert.ok(!agent?.log.some(line => line.includes(password)))
      for (const pid of readdirSync('/proc').filter(each => /^\d+$/.test(each)))
        try {
          assert.ok(!readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(password), pid)
        } catch (error) {
          if (error instanceof assert.AssertionError) throw error
        }
      resultOf(await node.call('DEL', it, cloud.options()))
    })

    testTwiceInWhole(mode)('ADD: a subnet without a free address says so', async () => {
      const { node, simulator } = cloud
      await fill(simulator)
      const it = { containerId: 'full', netns }
      const error = errorOf(await node.call('ADD', it, cloud.options()))
      assert.equal(error.code, 102)
      assert.match(error.msg, /No more IP addresses available/)
      resultOf(await node.call('DEL', it, cloud.options()))
      assertSameState(stateOfKernel(node), kernel)
      assert.deepEqual(cloud.fixedIps(), addresses)
    })
  })

/** Takes every address of the servers' network. */
async function fill({ authUrl, endpoints, accounts, demo }: Simulator): Promise<void> {
  const { username: name, password, project } = accounts.demo
  const domain = { id: 'default' }
  const identity = { methods: ['password'], password: { user: { name, password, domain } } }
  const post = (url: string, body: object, token = '') =>
    fetch(url, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'content-type': 'application/json', 'x-auth-token': token },
    })
  const scope = { project: { name: project, domain } }
  const granted = await post(`${authUrl}/auth/tokens`, { auth: { identity, scope } })
  const token = granted.headers.get('x-subject-token')!
  const port = { network_id: demo().network_id }
  for (let wanted = 128; wanted >= 1; ) {
    const ports = Array.from({ length: wanted }, () => port)
    const { status } = await post(`${endpoints.network}/v2.0/ports`, { ports }, token)
    // All or nothing: where so many do not fit, half of them may.
    if (status !== 201) wanted = Math.floor(wanted / 2)
  }
}
