// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import {
  type Attachment,
  cachedAttachments,
  checkCacheFile,
  readCachedResult,
  removeCache,
  writeCache,
} from './cache.ts'

const root = mkdtempSync(join(tmpdir(), 'cni-cache-'))
after(() => rmSync(root, { recursive: true }))

let count = 0
const folder = () => join(root, `${count++}`)
const results = (directory: string) => join(directory, 'results')

const attachment = (containerId: string, more: Partial<Attachment> = {}): Attachment => ({
  containerId,
  ifName: 'eth0',
  netns: '/run/netns/x',
  args: [],
  capabilityArgs: {},
  ...more,
})
const config = new TextEncoder().encode('{"name":"net"}')
const result = { ips: [{ address: '10.0.0.2/24' }] }

test('writeCache() writes the format of libcni, private to root, and leaves no draft', async () => {
  const directory = folder()
  const full = attachment('c1', { args: [['K', 'V']], capabilityArgs: { ips: ['10.0.0.2'] } })
  await writeCache(directory, 'net', full, config, result, '1.0.0')
  const file = join(results(directory), 'net-c1-eth0')
  assert.deepEqual(readdirSync(results(directory)), ['net-c1-eth0'])
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(statSync(results(directory)).mode & 0o777, 0o700)
  assert.equal(
    readFileSync(file, 'utf8'),
    '{"kind":"cniCacheV1","containerId":"c1","config":"eyJuYW1lIjoibmV0In0=","ifName":"eth0","networkName":"net",' +
      '"netns":"/run/netns/x","cniArgs":[["K","V"]],"capabilityArgs":{"ips":["10.0.0.2"]},' +
      '"result":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}}',
  )
})

test('readCachedResult() reads what was written, undefined where nothing was', async () => {
  const directory = folder()
  assert.equal(await readCachedResult(directory, 'net', attachment('c1')), undefined)
  await writeCache(directory, 'net', attachment('c1'), config, result, '0.2.0')
  assert.deepEqual(await readCachedResult(directory, 'net', attachment('c1')), result)
})

test('readCachedResult() reads a bare result of old runtimes, and refuses garbage', async () => {
  const directory = folder()
  mkdirSync(results(directory), { recursive: true })
  const file = join(results(directory), 'net-c1-eth0')
  writeFileSync(file, '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}')
  assert.deepEqual(await readCachedResult(directory, 'net', attachment('c1')), result)
  for (const garbage of ['', '{', '{"kind":"cniCacheV1"', '[]']) {
    writeFileSync(file, garbage)
    await assert.rejects(readCachedResult(directory, 'net', attachment('c1')), { name: 'CniError' })
  }
})

test('names that give one file are told apart by what stands inside', async () => {
  const directory = folder()
  const [ours, theirs] = [attachment('b-c'), attachment('c')]
  await writeCache(directory, 'a', ours, config, result, '1.0.0')
  assert.equal(await readCachedResult(directory, 'a-b', theirs), undefined)
  await assert.rejects(checkCacheFile(directory, 'a-b', theirs), {
    code: 104,
    message: /container "b-c" in network "a"/,
  })
  await removeCache(directory, 'a-b', theirs)
  assert.deepEqual(await readCachedResult(directory, 'a', ours), result)
  await checkCacheFile(directory, 'a', ours)
})

test('checkCacheFile() refuses a name that no file can have', async () => {
  await assert.rejects(checkCacheFile(folder(), 'net', attachment('c'.repeat(300))), {
    code: 4,
    message: /its file name has 309 bytes, 255 are possible/,
  })
})

test('removeCache() removes a broken file, and bears a missing one', async () => {
  const directory = folder()
  await removeCache(directory, 'net', attachment('c1'))
  mkdirSync(results(directory), { recursive: true })
  writeFileSync(join(results(directory), 'net-c1-eth0'), '')
  await removeCache(directory, 'net', attachment('c1'))
  assert.deepEqual(readdirSync(results(directory)), [])
})

test('cachedAttachments() lists what is cniCacheV1, by container where wanted', async () => {
  const directory = folder()
  assert.deepEqual(await cachedAttachments(directory), [])
  await writeCache(directory, 'n1', attachment('c1', { args: [['K', 'V']] }), config, result, '1.0.0')
  await writeCache(directory, 'n2', attachment('c1'), config, result, '1.0.0')
  await writeCache(directory, 'n1', attachment('c2'), config, result, '1.0.0')
  writeFileSync(join(results(directory), 'n3-c1-eth0'), '{"cniVersion":"0.2.0"}')
  const cut = { kind: 'cniCacheV1', containerId: 'c1', ifName: 'eth0', networkName: 'n4', config: 'e' }
  writeFileSync(join(results(directory), 'n4-c1-eth0'), JSON.stringify(cut))
  const found = await cachedAttachments(directory, 'c1')
  assert.deepEqual(
    found.map(each => [each.network, each.containerId, each.args]),
    [
      ['n1', 'c1', [['K', 'V']]],
      ['n2', 'c1', []],
    ],
  )
  assert.deepEqual(found[0]?.config, config)
  assert.equal((await cachedAttachments(directory)).length, 3)
})
