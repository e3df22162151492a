// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cloudFromConf } from '../conf.ts'
import { type CatalogEntry, findEndpoint } from './catalog.ts'

const cloud = (extra: object = {}) =>
  cloudFromConf({ username: 'u', password: 'pppp', authUrl: 'http://k:5000', ...extra })
const endpoint = (region_id: string, name: string, url: string) => ({
  interface: name,
  region_id,
  region: region_id,
  url,
})
const catalog: CatalogEntry[] = [
  {
    type: 'network',
    endpoints: [
      endpoint('A', 'public', 'http://a:9696/'),
      endpoint('A', 'internal', 'http://ai:9696/v2.0'),
      endpoint('B', 'public', 'http://b/networking'),
    ],
  },
  { type: 'compute', endpoints: [endpoint('A', 'public', 'http://a:8774/v2.1/4711')] },
]
const urlOf = (extra: object, service: 'network' | 'compute' = 'network') => {
  const found = findEndpoint(cloud(extra), catalog, service)
  return 'url' in found ? found.url : found.reason
}

test('findEndpoint() chooses region and interface, and completes the version', () => {
  assert.equal(urlOf({ region: 'A' }), 'http://a:9696/v2.0')
  assert.equal(urlOf({ region: 'A', interface: 'internal' }), 'http://ai:9696/v2.0')
  assert.equal(urlOf({ region: 'B' }), 'http://b/networking/v2.0')
  assert.equal(urlOf({}, 'compute'), 'http://a:8774/v2.1/4711')
  assert.equal(urlOf({ networkEndpoint: 'http://mine:1/' }), 'http://mine:1/v2.0')
})

test('findEndpoint() says what the catalog has instead', () => {
  assert.equal(urlOf({}), 'the catalog has network in several regions: A, B; none is chosen')
  assert.equal(
    urlOf({ region: 'C' }),
    'the catalog has no public endpoint of "network" in region "C": it has public in "A", internal in "A", public in "B"',
  )
  assert.equal(
    urlOf({ interface: 'admin' }, 'compute'),
    'the catalog has no admin endpoint of "compute": it has public in "A"',
  )
  const empty = findEndpoint(cloud(), [], 'network')
  assert.match('reason' in empty ? empty.reason : '', /it is empty; the token has no project/)
})
